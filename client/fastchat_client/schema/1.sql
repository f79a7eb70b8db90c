-- The vault's tables. Each is read and written by one module, named here; times are milliseconds since 1970.

-- vault.py: single values (whose vault this is, how far its registration has come, counters)
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO meta VALUES ('next_n', 1);

-- history.py (and read by vault.py): what people see. state: of a message from here, as in events.State; told: what its sender
-- has been told of a received one (0 nothing, 1 delivered, 2 read); unreadable: a placeholder, reason says why
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    conversation TEXT NOT NULL,
    sender TEXT NOT NULL,
    own INTEGER NOT NULL,
    at INTEGER NOT NULL,
    text TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    unreadable INTEGER NOT NULL DEFAULT 0,
    read INTEGER NOT NULL DEFAULT 0,
    told INTEGER NOT NULL DEFAULT 0,
    UNIQUE (device, n)
);
CREATE INDEX messages_by_conversation ON messages (conversation, seq);
CREATE INDEX messages_unread ON messages (conversation) WHERE read = 0 AND own = 0;
CREATE INDEX messages_untold ON messages (conversation, seq) WHERE own = 0 AND unreadable = 0 AND told < 1 + read;

-- outbox.py: what is to be sent, or was sent within nine days. device: the only recipient, or NULL for all of the
-- user's and the sender's own others. state: 0 composed, 1 sealed, 2 accepted, 3 failed
CREATE TABLE outbox (
    n INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    device TEXT,
    content BLOB NOT NULL,
    at INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    shown INTEGER NOT NULL,
    sealed_again INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    done_at INTEGER
);
CREATE INDEX outbox_open ON outbox (n) WHERE state < 2;
CREATE INDEX outbox_done ON outbox (done_at) WHERE state >= 2;
-- A message's recipient devices; body is its line's JSON string until the message is accepted, then NULL
CREATE TABLE sealed (
    n INTEGER NOT NULL,
    device TEXT NOT NULL,
    body BLOB,
    PRIMARY KEY (n, device)
) WITHOUT ROWID;

-- inbox.py: every message that was ever committed here; messages that wait for keys or for a decision, in order;
-- which unreadable messages were asked for again, and when they came
CREATE TABLE seen (device TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (device, n)) WITHOUT ROWID;
CREATE TABLE held (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    user TEXT NOT NULL,
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX held_by_user ON held (user, seq);
CREATE TABLE retries (
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    user TEXT NOT NULL,
    reason TEXT NOT NULL,
    came_at INTEGER NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0,
    asked_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (device, n)
) WITHOUT ROWID;

-- trust.py: accounts as they were pinned, with their chain as JSON; offered: the chain of another root that waits
-- for a decision; devices of the believed chains, and their newest seal key as it was signed
CREATE TABLE accounts (
    user TEXT PRIMARY KEY,
    root BLOB NOT NULL,
    links BLOB NOT NULL,
    stale INTEGER NOT NULL DEFAULT 0,
    fetched_at INTEGER NOT NULL,
    offered BLOB,
    offered_root BLOB
) WITHOUT ROWID;
CREATE TABLE devices (
    device TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    ed25519 BLOB NOT NULL,
    curve25519 BLOB NOT NULL,
    seal_id INTEGER,
    seal BLOB
) WITHOUT ROWID;
CREATE INDEX devices_by_user ON devices (user);

-- sessions.py: Olm sessions with peer devices, several each
CREATE TABLE sessions (
    device TEXT NOT NULL,
    session TEXT NOT NULL,
    pickle TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (device, session)
) WITHOUT ROWID;

-- prekeeping.py: this device's seal keys; replaced_at: when a newer one was published
CREATE TABLE seal_keys (
    id INTEGER PRIMARY KEY,
    private BLOB NOT NULL,
    made_at INTEGER NOT NULL,
    replaced_at INTEGER
);

-- witness.py: the network's key log, leaf by leaf, with the log's root after each; what peers said of it that could
-- not be compared yet
CREATE TABLE log (
    size INTEGER PRIMARY KEY,
    user_hash BLOB NOT NULL,
    position INTEGER NOT NULL,
    link_hash BLOB NOT NULL,
    root BLOB NOT NULL
);
CREATE INDEX log_by_user ON log (user_hash, position);
CREATE TABLE claims (device TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL) WITHOUT ROWID;
