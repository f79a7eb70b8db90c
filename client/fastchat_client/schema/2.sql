-- What came with groups, replies, reactions, edits and disappearing messages. The first file is never changed: a vault
-- that has it gets this one on top. Times are milliseconds since 1970; lengths are of a group's chain.

-- history.py: reply_device and reply_n name the message that this one answers; edited_at: of its newest edit; deleted:
-- for everyone, the text is gone; expires: seconds after reading that it stays, 0 for ever; expires_at: when it goes,
-- once it has been read; length: of the group's chain by which a message from here went. unreadable is 2 while a message
-- waits for a key
ALTER TABLE messages ADD COLUMN reply_device TEXT;
ALTER TABLE messages ADD COLUMN reply_n INTEGER;
ALTER TABLE messages ADD COLUMN edited_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN expires_at INTEGER;
ALTER TABLE messages ADD COLUMN length INTEGER NOT NULL DEFAULT 0;
CREATE INDEX messages_expiring ON messages (expires_at) WHERE expires_at NOT NULL;
CREATE INDEX messages_own ON messages (conversation) WHERE own = 1;

-- marking.py: how far each recipient of a message from here in a group has come (events.State); who reacted how, by
-- which message of theirs, also what was taken back since. pending: the message that it is on has not come yet
CREATE TABLE marks (
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    user TEXT NOT NULL,
    state TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (device, n, user)
) WITHOUT ROWID;
CREATE TABLE reactions (
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    user TEXT NOT NULL,
    emoji TEXT NOT NULL,
    conversation TEXT NOT NULL,
    by_device TEXT NOT NULL,
    by_n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    came_at INTEGER NOT NULL,
    PRIMARY KEY (device, n, user, emoji)
) WITHOUT ROWID;
CREATE INDEX reactions_pending ON reactions (user) WHERE pending = 1;

-- amending.py: the newest edit of each device (by_device, by_n) of a message; and who has deleted a message that has not
-- come yet. came_at: by the clock here
CREATE TABLE edits (
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    by_device TEXT NOT NULL,
    by_n INTEGER NOT NULL,
    user TEXT NOT NULL,
    conversation TEXT NOT NULL,
    at INTEGER NOT NULL,
    text TEXT NOT NULL,
    pending INTEGER NOT NULL,
    came_at INTEGER NOT NULL,
    PRIMARY KEY (device, n, by_device)
) WITHOUT ROWID;
CREATE INDEX edits_pending ON edits (user) WHERE pending = 1;
CREATE TABLE deletes (
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    user TEXT NOT NULL,
    by_device TEXT NOT NULL,
    conversation TEXT NOT NULL,
    at INTEGER NOT NULL,
    came_at INTEGER NOT NULL,
    PRIMARY KEY (device, n, user)
) WITHOUT ROWID;
CREATE INDEX deletes_by_user ON deletes (user);

-- settings.py: what this person has set, on this device. timer: seconds after reading that messages stay, 0 for ever; it
-- was set at timer_at by timer_device. presence: when somebody was there last
CREATE TABLE conversation_settings (
    conversation TEXT PRIMARY KEY,
    muted INTEGER NOT NULL DEFAULT 0,
    timer INTEGER NOT NULL DEFAULT 0,
    timer_at INTEGER NOT NULL DEFAULT 0,
    timer_device TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE blocked (user TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE presence (user TEXT PRIMARY KEY, last_seen INTEGER NOT NULL) WITHOUT ROWID;

-- sessions.py: how much was sealed with the session since something came through it; NULL: nothing ever has
ALTER TABLE sessions ADD COLUMN unheard INTEGER;

-- outbox.py and composing.py: length of the group's chain that a group message was encrypted by; own_copies: whether one's own other
-- devices get it as well; quotes: the message ("device.n") whose words stand in it
ALTER TABLE outbox ADD COLUMN length INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN own_copies INTEGER NOT NULL DEFAULT 1;
ALTER TABLE outbox ADD COLUMN quotes TEXT;
CREATE INDEX outbox_quotes ON outbox (quotes) WHERE quotes NOT NULL;

-- groups.py: each group's chain as it was verified, what it comes to (state, as JSON), its name and topic where somebody
-- has told what the chain's hash stands for, and from which length to which somebody was a member. group_ends: how
-- long the chain was when all was in it that a device had signed before it was revoked
CREATE TABLE groups (
    group_id TEXT PRIMARY KEY,
    length INTEGER NOT NULL,
    state BLOB NOT NULL,
    title BLOB,
    name TEXT NOT NULL DEFAULT '',
    topic TEXT NOT NULL DEFAULT '',
    alarm TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE group_statements (
    group_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    body BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (group_id, position)
) WITHOUT ROWID;
CREATE TABLE group_ends (
    group_id TEXT NOT NULL,
    device TEXT NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (group_id, device)
) WITHOUT ROWID;
CREATE TABLE group_spans (
    group_id TEXT NOT NULL,
    user TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (group_id, user, since)
) WITHOUT ROWID;

-- group_acting.py: what this person wants done to a group. statement: as it was signed last; state: 0 open, 1 done,
-- 2 failed
CREATE TABLE group_acts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id TEXT NOT NULL,
    act BLOB NOT NULL,
    at INTEGER NOT NULL,
    length INTEGER NOT NULL,
    statement BLOB,
    signature BLOB,
    state INTEGER NOT NULL DEFAULT 0,
    code TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT ''
);
CREATE INDEX group_acts_open ON group_acts (group_id, seq) WHERE state = 0;

-- group_keys.py: the Megolm session that this device encrypts with in each group; which devices have which of them, from
-- which index on; and every session that can be read here, with the signed statement of whose it is; earlier: who has
-- invited us gave it, and verified: whether the statement was checked. missed: the network has refused that key for it
CREATE TABLE group_outbound (
    group_id TEXT PRIMARY KEY,
    session BLOB NOT NULL,
    pickle TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    messages INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE group_shared (
    session BLOB NOT NULL,
    device TEXT NOT NULL,
    user TEXT NOT NULL,
    first_index INTEGER NOT NULL,
    missed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session, device)
) WITHOUT ROWID;
CREATE TABLE group_sessions (
    group_id TEXT NOT NULL,
    session BLOB NOT NULL,
    user TEXT NOT NULL,
    device TEXT NOT NULL,
    first_index INTEGER NOT NULL,
    pickle TEXT NOT NULL,
    proof BLOB NOT NULL,
    earlier INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (group_id, session, device, earlier)
) WITHOUT ROWID;

-- group_bodies.py: group messages as they came, for a month: those that wait for a key or for statements (waits: why),
-- and those that were read, so that a newcomer can be given them. group_histories: what a newcomer was given before the
-- chain had come that says by whom
CREATE TABLE group_bodies (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id TEXT NOT NULL,
    session BLOB NOT NULL,
    user TEXT NOT NULL,
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    waits TEXT NOT NULL DEFAULT '',
    earlier INTEGER NOT NULL DEFAULT 0,
    asked INTEGER NOT NULL DEFAULT 0,
    asked_at INTEGER NOT NULL DEFAULT 0,
    UNIQUE (device, n, earlier)
);
CREATE TABLE group_histories (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id TEXT NOT NULL,
    user TEXT NOT NULL,
    device TEXT NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX group_sessions_of_device ON group_sessions (device, at);
CREATE INDEX group_bodies_waiting ON group_bodies (group_id, seq) WHERE waits != '';
CREATE INDEX group_bodies_read ON group_bodies (group_id, at) WHERE waits = '';
