-- What gateways keep: who may call, and what was found. Of a token's secret only the SHA-256.
CREATE TABLE smoothapi.tokens (
    id text PRIMARY KEY, name text NOT NULL UNIQUE, digest bytea NOT NULL, budget text NOT NULL,
    per_second float8, operator boolean NOT NULL, made timestamptz NOT NULL
);
CREATE TABLE smoothapi.certificates (
    id text PRIMARY KEY, number bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL,
    caller text NOT NULL, provider text NOT NULL, operation text NOT NULL, outcome text NOT NULL,
    why text NOT NULL, content text NOT NULL
);
CREATE INDEX certificates_at ON smoothapi.certificates (at DESC, number DESC);
