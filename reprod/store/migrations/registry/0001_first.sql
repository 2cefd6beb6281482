-- The registry: which datasets there are, environments, snapshots and what is owed to runs. Times are Unix nanoseconds.

CREATE TABLE dataset (
  name       TEXT PRIMARY KEY,
  root       BLOB NOT NULL,
  file       TEXT NOT NULL,          -- name of the dataset's own database in STATE/datasets
  seq        INTEGER NOT NULL DEFAULT 0,  -- highest version ever sealed: numbering goes on here after a rebuild
  digest     BLOB,                   -- of that version
  chain      BLOB,                   -- head of its hash chain
  files      INTEGER,
  bytes      INTEGER,
  sealed_ns  INTEGER,
  proved_ns  INTEGER,
  state      TEXT NOT NULL DEFAULT 'new',
  reason     TEXT,
  added_ns   INTEGER NOT NULL,
  removed_ns INTEGER,
  moving_to  BLOB,                   -- `dataset move` wants this root: the history goes on there, it is no new epoch
  renaming_to TEXT                   -- `dataset rename` wants this name
) STRICT;

CREATE TABLE epoch (                 -- roots that a name stood for before its present one, each with its own file
  name      TEXT NOT NULL,           -- of the dataset, its present one
  file      TEXT NOT NULL,
  root      BLOB NOT NULL,
  last_seq  INTEGER NOT NULL,        -- numbers go on after it, so a number says which epoch it is of
  digest    BLOB,
  chain     BLOB,                    -- head of the chain at the end; the next epoch's goes on from it
  ended_ns  INTEGER NOT NULL,
  PRIMARY KEY (name, last_seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE alias (                 -- names that datasets had: what runs recorded until then is found by it
  name      TEXT NOT NULL,
  until_ns  INTEGER NOT NULL,        -- when it was given up; afterwards the name may stand for another dataset
  dataset   TEXT NOT NULL,           -- the present name
  PRIMARY KEY (name, until_ns)
) STRICT, WITHOUT ROWID;

CREATE TABLE environment (
  digest   TEXT PRIMARY KEY,         -- sha256 hex of its canonical content, without times and process ids
  record   BLOB NOT NULL,            -- JSON, redacted before it came here
  kept_ns  INTEGER NOT NULL          -- when it was first seen here
) STRICT;

CREATE TABLE environment_file (      -- what belongs to one and is no JSON: what a repository held uncommitted
  environment TEXT NOT NULL REFERENCES environment (digest),
  name        TEXT NOT NULL,         -- as the artifact is called
  content     BLOB NOT NULL,
  PRIMARY KEY (environment, name)
) STRICT;

CREATE TABLE sample (                -- the timer's history of interpreters and of the host: a row a change
  subject    TEXT NOT NULL,          -- prefix, or 'host'
  digest     TEXT NOT NULL REFERENCES environment (digest),
  first_ns   INTEGER NOT NULL,
  last_ns    INTEGER NOT NULL,
  PRIMARY KEY (subject, first_ns)
) STRICT, WITHOUT ROWID;

CREATE TABLE handover (              -- what a process said of itself over the socket
  process    TEXT PRIMARY KEY,       -- ProcessContext.key
  uid        INTEGER NOT NULL,
  digest     TEXT REFERENCES environment (digest),  -- NULL: announced, record not there yet
  taken_ns   INTEGER NOT NULL,
  execution  BLOB                    -- JSON: what the process said of itself beside its environment
) STRICT, WITHOUT ROWID;

CREATE TABLE boot (                  -- boots of this host that a daemon saw: their clock was ours
  boot_id  TEXT PRIMARY KEY,
  seen_ns  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE delivery (              -- the outbox: a snapshot owed to a run
  id            INTEGER PRIMARY KEY,
  tracking_uri  TEXT NOT NULL,
  run_id        TEXT NOT NULL,
  recorded      TEXT NOT NULL,       -- value of reprod.dataset that this row answers
  run           BLOB NOT NULL,       -- JSON of the PendingRun as it was noticed
  snapshot      BLOB,                -- JSON of the frozen Snapshot; NULL until published
  prepared      BLOB,                -- JSON: names that the run already had; frozen before the first upload
  state         TEXT NOT NULL,       -- noticed, waiting, ending, done, failed (reprod/store/outbox.py)
  outcome       TEXT,                -- what reprod.state says on the run: captured, incomplete, failed
  attempts      INTEGER NOT NULL DEFAULT 0,
  next_ns       INTEGER NOT NULL DEFAULT 0,
  error         TEXT,
  created_ns    INTEGER NOT NULL,
  settled_ns    INTEGER,
  UNIQUE (tracking_uri, run_id, recorded)
) STRICT;
CREATE INDEX delivery_due ON delivery (state, next_ns);

CREATE TABLE implied (               -- since when an experiment's tag, or a rule, says which dataset its runs use
  tracking_uri  TEXT NOT NULL,
  experiment_id TEXT NOT NULL,
  source        TEXT NOT NULL,       -- experiment, rule
  dataset       TEXT NOT NULL,       -- as a run's own tag would say it
  since_ns      INTEGER NOT NULL,    -- runs that started earlier are left alone
  PRIMARY KEY (tracking_uri, experiment_id, source, dataset)
) STRICT, WITHOUT ROWID;

CREATE TABLE upload (                -- manifests of versions on tracking servers (reprod/store/uploads.py)
  tracking_uri     TEXT NOT NULL,
  file             TEXT NOT NULL,    -- the dataset's own database, as in dataset.file: another root is another file
  seq              INTEGER NOT NULL,
  digest           BLOB NOT NULL,    -- of that version: the reference; everything below is a hint that may be lost
  run_id           TEXT NOT NULL,    -- the store run, in the experiment reprod-datasets
  kind             TEXT NOT NULL,    -- begun (perhaps not whole), checkpoint, delta
  base             BLOB,             -- digest that a delta leads from
  chain            TEXT NOT NULL,    -- store runs from this one down to its checkpoint, separated by blanks
  bytes            INTEGER NOT NULL,
  checkpoint_bytes INTEGER NOT NULL, -- of the checkpoint at the end of the chain
  checked_ns       INTEGER NOT NULL, -- when the whole chain was last seen on the server
  PRIMARY KEY (tracking_uri, file, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_digest ON upload (tracking_uri, digest);

CREATE TABLE drift (                 -- what is known of the end of a run, and what was said of its drift
  delivery   INTEGER PRIMARY KEY REFERENCES delivery (id),
  ended      TEXT,                   -- how it had ended when it was judged: its status, or that its process is gone;
                                     -- NULL: it is RUNNING again
  end_ms     INTEGER,                -- what the run says of its end: one that was resumed keeps that of before
  running_ns INTEGER NOT NULL,       -- when it was last seen RUNNING, else its start
  ended_ns   INTEGER NOT NULL,       -- when it was first seen ended
  verdict    TEXT NOT NULL,
  judged_ns  INTEGER NOT NULL,
  again_ns   INTEGER NOT NULL,       -- when it is judged again; 0: not before the run changes
  asked_ns   INTEGER NOT NULL        -- when the run's status was last asked for
) STRICT;
CREATE INDEX drift_judged ON drift (judged_ns);
