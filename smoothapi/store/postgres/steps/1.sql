-- Schema 1. Columns and numbers named nano are billionths of a dollar.
--
-- Functions say how durable what they write is to be: durable() where money or an answer depends on
-- it, light() where a crash of the server may undo the last moments (a lost lease costs nothing).

CREATE TABLE smoothapi.answers (
    key bytea PRIMARY KEY, noise_key text, stored timestamptz NOT NULL, line text NOT NULL
);
CREATE TABLE smoothapi.erased (key bytea PRIMARY KEY, refreshes bigint NOT NULL CHECK (refreshes > 0));
CREATE TABLE smoothapi.seen (
    provider text, identity text, kind text, name text,
    PRIMARY KEY (provider, identity, kind, name)
);
CREATE TABLE smoothapi.noise_keys (id text PRIMARY KEY, since timestamptz NOT NULL);
CREATE TABLE smoothapi.notes (name text PRIMARY KEY, content text NOT NULL);
CREATE TABLE smoothapi.accounts (
    name text, period text, attempts bigint NOT NULL CHECK (attempts >= 0),
    nano numeric NOT NULL CHECK (nano >= 0), attempt_limit bigint, nano_limit numeric,
    PRIMARY KEY (name, period)
);
CREATE TABLE smoothapi.usage (
    provider text, month text, attempts bigint NOT NULL CHECK (attempts >= 0),
    PRIMARY KEY (provider, month)
);
CREATE TABLE smoothapi.owners (name text PRIMARY KEY, until timestamptz NOT NULL);
CREATE TABLE smoothapi.reservations (
    id bigint PRIMARY KEY, owner text NOT NULL, at timestamptz NOT NULL, provider text NOT NULL,
    month text NOT NULL, day bigint NOT NULL, names text[] NOT NULL, periods text[] NOT NULL,
    fewest bigint NOT NULL, most bigint NOT NULL,
    attempts bigint NOT NULL CHECK (attempts >= 0), nano numeric NOT NULL CHECK (nano >= 0)
);
CREATE INDEX reservations_of ON smoothapi.reservations (provider, month);
CREATE TABLE smoothapi.paces (
    provider text PRIMARY KEY, due float8 NOT NULL, rate float8, changed float8 NOT NULL
);
CREATE TABLE smoothapi.leases (
    key text PRIMARY KEY, owner text NOT NULL, until timestamptz NOT NULL
);
CREATE INDEX leases_of ON smoothapi.leases (owner);
CREATE INDEX leases_until ON smoothapi.leases (until);
CREATE TABLE smoothapi.given_up (key text PRIMARY KEY, at timestamptz NOT NULL);

-- Make a noise key known where none is, or one is that it replaced; return those known, the latest
-- first.
CREATE FUNCTION smoothapi.introduce(given_id text, former text[])
RETURNS SETOF text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM smoothapi.noise_keys WHERE id = given_id) THEN
        PERFORM smoothapi.take_turns();
        INSERT INTO smoothapi.noise_keys
            SELECT given_id, smoothapi.moment()
            WHERE NOT EXISTS (SELECT FROM smoothapi.noise_keys)
               OR EXISTS (SELECT FROM smoothapi.noise_keys WHERE id = ANY (former))
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN QUERY SELECT id FROM smoothapi.noise_keys ORDER BY since DESC, id;
END $$;

-- What time it is. Nothing else looks at a clock.
CREATE FUNCTION smoothapi.moment() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT clock_timestamp()';

CREATE FUNCTION smoothapi.seconds(moment timestamptz) RETURNS float8 LANGUAGE sql IMMUTABLE
    AS 'SELECT extract(epoch FROM moment)::float8';

CREATE FUNCTION smoothapi.period(per text, moment timestamptz)
RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE per WHEN 'day' THEN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD')
                    WHEN 'month' THEN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM')
                    ELSE 'run' END
$$;

-- Have this transaction wait for the disk, though the server were set not to.
CREATE FUNCTION smoothapi.durable() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION smoothapi.light() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN true;
END $$;

CREATE FUNCTION smoothapi.take_turns() RETURNS void LANGUAGE sql VOLATILE
    AS 'SELECT pg_advisory_xact_lock(32489947700422753)';

-- Reduce a reservation, its accounts and its provider's month to what was sent of it.
CREATE FUNCTION smoothapi.reduce(which bigint, sent bigint, price numeric)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    held smoothapi.reservations;
BEGIN
    SELECT * INTO held FROM smoothapi.reservations WHERE id = which;
    IF NOT FOUND THEN  -- somebody released it as abandoned
        RETURN;
    END IF;
    -- Never more again: a statement that was long on its way may come after a later one.
    sent := least(sent, held.attempts);
    price := least(price, held.nano);
    UPDATE smoothapi.accounts a
        SET attempts = a.attempts - (held.attempts - sent), nano = a.nano - (held.nano - price)
        FROM unnest(held.names, held.periods) AS its(name, period)
        WHERE a.name = its.name AND a.period = its.period;
    UPDATE smoothapi.usage u SET attempts = u.attempts - (held.attempts - sent)
        WHERE u.provider = held.provider AND u.month = held.month;
    UPDATE smoothapi.reservations SET attempts = sent, nano = price WHERE id = which;
END $$;

-- Give back what blocks did not use, and set another aside if it fits.
--   limits  [{name, per, attempts, nano}]: all hold at once
--   retired [{id, used, nano, settled}]: blocks that nothing more is taken of
--   wanted  {id, size, room, nano, from, to, owner, seconds}, or null: a block of that size, whose
--           price holds where the month has had `from` to `to` attempts, if each limit of attempts
--           has that room. One with that id may have been made before: then it is told again.
-- Returns {now, fewest, most, spent: [[attempts, nano] of each limit], block: {day, fewest, most}}
CREATE FUNCTION smoothapi.book(given_provider text, limits jsonb, retired jsonb, wanted jsonb)
RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    now_is timestamptz;
    this_month text;
    had bigint;  -- attempts of the provider in this month, reservations included
    sent bigint;  -- without them
    size bigint := (wanted->>'size')::bigint;
    price numeric := (wanted->>'nano')::numeric;
    fits boolean;
    spent jsonb;
    made jsonb;
BEGIN
    PERFORM smoothapi.durable();
    PERFORM smoothapi.take_turns();
    now_is := smoothapi.moment();  -- after the wait for a turn
    this_month := smoothapi.period('month', now_is);

    PERFORM smoothapi.reduce(one.id, one.used, one.nano)
        FROM jsonb_to_recordset(retired) AS one(id bigint, used bigint, nano numeric);
    DELETE FROM smoothapi.reservations r
        USING jsonb_to_recordset(retired) AS one(id bigint, settled boolean)
        WHERE r.id = one.id AND one.settled;

    SELECT coalesce(
        (SELECT u.attempts FROM smoothapi.usage u
            WHERE u.provider = given_provider AND u.month = this_month), 0) INTO had;
    SELECT greatest(0, had - coalesce(sum(r.attempts), 0)) FROM smoothapi.reservations r
        WHERE r.provider = given_provider AND r.month = this_month INTO sent;

    SELECT coalesce(jsonb_agg(jsonb_build_array(coalesce(a.attempts, 0), coalesce(a.nano, 0))
                              ORDER BY l.n), '[]'),
           coalesce(bool_and(
               ((l.it->>'attempts') IS NULL
                OR coalesce(a.attempts, 0) + (wanted->>'room')::bigint
                   <= (l.it->>'attempts')::bigint)
               AND ((l.it->>'nano') IS NULL
                    OR coalesce(a.nano, 0) + price <= (l.it->>'nano')::numeric)), true)
        FROM jsonb_array_elements(limits) WITH ORDINALITY AS l(it, n)
        LEFT JOIN smoothapi.accounts a
            ON a.name = l.it->>'name' AND a.period = smoothapi.period(l.it->>'per', now_is)
        INTO spent, fits;

    IF size IS NOT NULL THEN
        SELECT jsonb_build_object('day', r.day, 'fewest', r.fewest, 'most', r.most)
            FROM smoothapi.reservations r WHERE r.id = (wanted->>'id')::bigint INTO made;
        IF made IS NULL AND fits AND sent >= (wanted->>'from')::bigint
                AND had <= (wanted->>'to')::bigint THEN
            made := jsonb_build_object(
                'day', floor(smoothapi.seconds(now_is) / 86400)::bigint,
                'fewest', sent, 'most', had);
            WITH its AS (
                SELECT l.it->>'name' AS name, smoothapi.period(l.it->>'per', now_is) AS period,
                       min((l.it->>'attempts')::bigint) AS attempt_limit,
                       min((l.it->>'nano')::numeric) AS nano_limit
                FROM jsonb_array_elements(limits) AS l(it) GROUP BY 1, 2
            ), counted AS (
                INSERT INTO smoothapi.accounts AS a
                    (name, period, attempts, nano, attempt_limit, nano_limit)
                    SELECT its.name, its.period, size, price, its.attempt_limit, its.nano_limit
                    FROM its
                ON CONFLICT (name, period) DO UPDATE SET
                    attempts = a.attempts + excluded.attempts, nano = a.nano + excluded.nano,
                    attempt_limit = excluded.attempt_limit, nano_limit = excluded.nano_limit
            )
            INSERT INTO smoothapi.reservations
                (id, owner, at, provider, month, day, names, periods, fewest, most, attempts, nano)
                SELECT (wanted->>'id')::bigint, wanted->>'owner', now_is, given_provider, this_month,
                       (made->>'day')::bigint, coalesce(array_agg(its.name), '{}'),
                       coalesce(array_agg(its.period), '{}'), sent, had, size, price
                FROM its;
            INSERT INTO smoothapi.usage AS u (provider, month, attempts)
                VALUES (given_provider, this_month, size)
                ON CONFLICT (provider, month) DO UPDATE
                SET attempts = u.attempts + excluded.attempts;
            PERFORM smoothapi.live(wanted->>'owner', (wanted->>'seconds')::float8);
        END IF;
    END IF;
    RETURN jsonb_build_object('now', smoothapi.seconds(now_is), 'fewest', sent, 'most', had,
                              'spent', spent, 'block', made);
END $$;

-- Note that an owner of reservations is alive; return what time it is.
CREATE FUNCTION smoothapi.live(given_owner text, seconds float8)
RETURNS float8 LANGUAGE sql VOLATILE AS $$
    INSERT INTO smoothapi.owners (name, until)
        VALUES (given_owner, smoothapi.moment() + seconds * interval '1 second')
        ON CONFLICT (name) DO UPDATE SET until = excluded.until;
    SELECT smoothapi.seconds(smoothapi.moment())
$$;

-- Give back what dead owners reserved, or everyone; return how many attempts.
CREATE FUNCTION smoothapi.release_abandoned(everywhere boolean)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    one record;
    released bigint := 0;
BEGIN
    PERFORM smoothapi.durable();
    PERFORM smoothapi.take_turns();
    FOR one IN
        SELECT r.id, r.attempts FROM smoothapi.reservations r
        LEFT JOIN smoothapi.owners o ON o.name = r.owner
        WHERE everywhere OR o.until IS NULL OR o.until <= smoothapi.moment()
    LOOP
        PERFORM smoothapi.reduce(one.id, 0, 0);
        DELETE FROM smoothapi.reservations WHERE id = one.id;
        released := released + one.attempts;
    END LOOP;
    -- What budgets without a name left behind when their process was killed. Not at once: one that
    -- was only cut off for a while must not begin anew.
    DELETE FROM smoothapi.accounts a WHERE a.name ~ '^run [0-9a-f]{32} '
        AND NOT EXISTS (SELECT FROM smoothapi.owners o WHERE o.name = substr(a.name, 38)
                        AND o.until > smoothapi.moment() - interval '1 day');
    DELETE FROM smoothapi.owners WHERE until <= smoothapi.moment() - interval '1 day';
    RETURN released;
END $$;

-- Forget what was spent under a name; return in how many periods.
CREATE FUNCTION smoothapi.reset(given_name text)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    forgotten bigint;
BEGIN
    PERFORM smoothapi.durable();
    PERFORM smoothapi.take_turns();
    -- Open reservations belong to the old account; releasing them must not credit the new one.
    UPDATE smoothapi.reservations r SET
        names = ARRAY(SELECT name FROM unnest(r.names, r.periods) AS its(name, period)
                      WHERE name <> given_name),
        periods = ARRAY(SELECT period FROM unnest(r.names, r.periods) AS its(name, period)
                        WHERE name <> given_name)
        WHERE given_name = ANY (r.names);
    DELETE FROM smoothapi.accounts WHERE name = given_name;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;

-- Take a place for pictures at a provider's pace; return the seconds to wait, null for no limit.
-- `full_rate` is the pace that it states, `seen` what is used where it states none.
CREATE FUNCTION smoothapi.take_place(
    given_provider text, full_rate float8, seen float8, pictures integer,
    burst float8, increase float8)
RETURNS float8 LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    pace smoothapi.paces;
    now_is float8;
    speed float8;
    begins float8;
BEGIN
    PERFORM smoothapi.light();
    IF full_rate IS NOT NULL THEN
        INSERT INTO smoothapi.paces VALUES (given_provider, 0, NULL, 0) ON CONFLICT DO NOTHING;
    END IF;
    SELECT * INTO pace FROM smoothapi.paces WHERE provider = given_provider FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    now_is := smoothapi.seconds(smoothapi.moment());
    speed := smoothapi.recovered(pace, full_rate, seen, now_is, increase);
    begins := greatest(pace.due, now_is - burst);
    UPDATE smoothapi.paces SET due = begins + pictures / speed, rate = speed, changed = now_is
        WHERE provider = given_provider;
    RETURN greatest(0, begins - now_is);
END $$;

-- Slow down, for all; return the rate and the seconds to wait.
CREATE FUNCTION smoothapi.throttle(
    given_provider text, full_rate float8, seen float8, pause float8,
    decrease float8, increase float8)
RETURNS float8[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    pace smoothapi.paces;
    now_is float8;
    speed float8;
    begins float8;
BEGIN
    PERFORM smoothapi.light();
    INSERT INTO smoothapi.paces VALUES (given_provider, 0, NULL, 0) ON CONFLICT DO NOTHING;
    SELECT * INTO pace FROM smoothapi.paces WHERE provider = given_provider FOR UPDATE;
    now_is := smoothapi.seconds(smoothapi.moment());
    speed := smoothapi.recovered(pace, full_rate, seen, now_is, increase);
    IF pace.rate IS NULL OR now_is - pace.changed >= 1 THEN
        speed := greatest(speed * decrease, coalesce(full_rate, seen) * 0.01);
    END IF;
    begins := greatest(pace.due, now_is + pause);
    UPDATE smoothapi.paces SET due = begins, rate = speed, changed = now_is
        WHERE provider = given_provider;
    RETURN ARRAY[speed, greatest(0, begins - now_is)];
END $$;

-- The rate, as far as it has recovered by now.
CREATE FUNCTION smoothapi.recovered(
    pace smoothapi.paces, full_rate float8, seen float8, now_is float8, increase float8)
RETURNS float8 LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN pace.rate IS NULL THEN coalesce(full_rate, seen)
        WHEN full_rate IS NULL
            THEN pace.rate + increase * seen * greatest(0, now_is - pace.changed)
        ELSE least(full_rate,
                   pace.rate + increase * full_rate * greatest(0, now_is - pace.changed))
    END
$$;
