-- What was run: history, on which nothing rests. `content` is a record as JSON; id, began and ended
-- are the server's to say.
CREATE TABLE smoothapi.runs (
    id text PRIMARY KEY,
    token text NOT NULL UNIQUE,
    began timestamptz NOT NULL,
    ended timestamptz,
    content text NOT NULL
);
CREATE INDEX runs_began ON smoothapi.runs (began DESC);
