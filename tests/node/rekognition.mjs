// What a user of the AWS SDK for JavaScript writes: node rekognition.mjs PHOTO, with AWS_* variables.
import { readFileSync } from "node:fs";
import {
  DetectLabelsCommand,
  RekognitionClient,
} from "@aws-sdk/client-rekognition";

const client = new RekognitionClient({ maxAttempts: 1 });
try {
  const response = await client.send(
    new DetectLabelsCommand({ Image: { Bytes: readFileSync(process.argv[2]) }, MaxLabels: 10 }),
  );
  delete response.$metadata;
  console.log(JSON.stringify(response));
} catch (error) {
  console.log(JSON.stringify({ error: error.name, message: error.message }));
}
