-- A dataset's file: current rows and reverse deltas. Times are Unix nanoseconds, paths and names raw bytes, digests raw.
-- "The open version" is max(version.seq) + 1: batches write its content into `file` at once and keep what was there
-- before in `history`, so a crash loses at most one batch and a sealed version is never touched.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value BLOB                       -- JSON or text, UTF-8
) STRICT, WITHOUT ROWID;

CREATE TABLE version (
  seq          INTEGER PRIMARY KEY,  -- may begin above 1: a rebuilt file continues the registry's numbering
  digest       BLOB,                 -- dt1 root node, 32 bytes; NULL: incomplete, such a set has no digest
  files        INTEGER NOT NULL,     -- regular files; symlinks are of the set too, but not counted
  bytes        INTEGER NOT NULL,
  problems     INTEGER NOT NULL,     -- unreadable or unstable entries
  added        INTEGER NOT NULL,
  removed      INTEGER NOT NULL,
  modified     INTEGER NOT NULL,
  reason       TEXT NOT NULL,        -- first, change, selection, moved, root (a new epoch), rebuilt
  record       TEXT NOT NULL,        -- canonical JSON of what this version says; hashed into the chain
  chain        BLOB NOT NULL,        -- sha256 over the previous chain value and the record
  pruned       INTEGER NOT NULL DEFAULT 0  -- 1: forgotten, its history rows may still be there; 2: they are gone
) STRICT;
CREATE INDEX version_pruned ON version (pruned);

CREATE TABLE mark (                  -- what the binding rule reads (reprod/core/binding.py)
  id            INTEGER PRIMARY KEY,
  seq           INTEGER NOT NULL REFERENCES version (seq),
  kind          TEXT NOT NULL,       -- version, touch, step
  sealed_ns     INTEGER NOT NULL,
  born_ns       INTEGER NOT NULL,    -- never falls
  root_since_ns INTEGER NOT NULL,    -- since when the root is known as this mount, device and inode
  walk_ns       INTEGER,             -- start of the full walk that made it
  low_ctime_ns  INTEGER,             -- smallest ctime among its own changes
  first_hint_ns INTEGER,
  proved_ns     INTEGER,             -- start of the last full walk that found every fingerprint like this
  gap_from_ns   INTEGER,             -- last moment at which the watch was whole
  gap_kind      TEXT                 -- downtime, overflow, re-arm, clock step, unannounced
) STRICT;
CREATE INDEX mark_step ON mark (id) WHERE kind = 'step';
CREATE UNIQUE INDEX mark_version ON mark (seq) WHERE kind = 'version';

CREATE TABLE directory (
  id        INTEGER PRIMARY KEY,
  parent    INTEGER REFERENCES directory (id),
  path      BLOB NOT NULL UNIQUE,
  present   INTEGER NOT NULL DEFAULT 1,
  dirty     INTEGER NOT NULL DEFAULT 1,  -- node must be computed again; then every parent is dirty too
  node      BLOB,                        -- NULL: empty, or something below has a problem
  files     INTEGER NOT NULL DEFAULT 0,  -- of the whole subtree, as are bytes and problems
  bytes     INTEGER NOT NULL DEFAULT 0,
  problems  INTEGER NOT NULL DEFAULT 0,
  problem   INTEGER,                     -- this very directory could not be listed (1: unreadable)
  mtime_ns  INTEGER,
  ctime_ns  INTEGER,
  inode     INTEGER
) STRICT;
CREATE INDEX directory_parent ON directory (parent);
CREATE INDEX directory_inode ON directory (inode);  -- finds what was renamed
CREATE INDEX directory_absent ON directory (id) WHERE present = 0;

CREATE TABLE file (
  id        INTEGER PRIMARY KEY,
  directory INTEGER NOT NULL REFERENCES directory (id),
  name      BLOB NOT NULL,
  kind      INTEGER NOT NULL,        -- 0 absent, 1 file, 2 symlink, 3 special
  size      INTEGER NOT NULL,
  sha256    BLOB,
  more      BLOB,                    -- further digests, MessagePack {algorithm: bytes}
  problem   INTEGER,                 -- 1 unreadable, 2 unstable
  mode      INTEGER NOT NULL,        -- from here on the fingerprint: stat when it was read, never versioned
  mtime_ns  INTEGER NOT NULL,
  ctime_ns  INTEGER NOT NULL,
  inode     INTEGER NOT NULL,
  UNIQUE (directory, name)
) STRICT;
CREATE INDEX file_problem ON file (directory) WHERE problem IS NOT NULL;
CREATE INDEX file_absent ON file (id) WHERE kind = 0;

CREATE TABLE history (               -- content BEFORE version `version`
  file      INTEGER NOT NULL REFERENCES file (id),
  version   INTEGER NOT NULL,
  kind      INTEGER NOT NULL,
  size      INTEGER NOT NULL,
  sha256    BLOB,
  more      BLOB,
  problem   INTEGER,
  mode      INTEGER NOT NULL,
  mtime_ns  INTEGER NOT NULL,
  PRIMARY KEY (file, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX history_version ON history (version);

CREATE TABLE pending (               -- what the open version has seen so far; survives a crash between batches
  id            INTEGER PRIMARY KEY CHECK (id = 1),
  touched       INTEGER NOT NULL DEFAULT 0,
  low_ctime_ns  INTEGER,
  high_ctime_ns INTEGER,
  first_hint_ns INTEGER,
  gap_from_ns   INTEGER,
  gap_kind      TEXT
) STRICT;
INSERT INTO pending (id) VALUES (1);

CREATE TABLE pin (                   -- versions that a run refers to are never pruned
  seq     INTEGER NOT NULL,
  owner   TEXT NOT NULL,             -- delivery key; a pin whose delivery never came expires
  made_ns INTEGER NOT NULL,
  PRIMARY KEY (seq, owner)
) STRICT, WITHOUT ROWID;

CREATE TABLE touched (               -- what marks have beside contents, the newest of all: for drift
  id   INTEGER PRIMARY KEY,
  mark INTEGER NOT NULL,             -- 0: of the mark that comes next
  what INTEGER NOT NULL,             -- reprod/store/touches.py
  path BLOB NOT NULL
) STRICT;
CREATE INDEX touched_mark ON touched (mark);

CREATE TABLE trace (                 -- a mark that has none has lost its rows of `touched`
  mark     INTEGER PRIMARY KEY,      -- 0: of the mark that comes next
  unlisted INTEGER NOT NULL DEFAULT 0,  -- what was touched beside, too many to keep their paths
  vanished INTEGER NOT NULL DEFAULT 0   -- names that came or went between two looks of one refresh
) STRICT;
INSERT INTO trace (mark) VALUES (0);
