-- What came with images and files. Times are milliseconds since 1970.

-- uploads.py: files that are on their way to the network; a row goes in the transaction that puts the message into the
-- outbox. content: the message, a `content.File`; the chunks are in outgoing/ATTACHMENT. source, source_size and
-- source_mtime (nanoseconds) tell whether the same file is meant once more; original: it is sent as it is
CREATE TABLE uploads (
    attachment TEXT PRIMARY KEY,
    conversation TEXT NOT NULL,
    content BLOB NOT NULL,
    source BLOB NOT NULL,
    source_size INTEGER NOT NULL,
    source_mtime INTEGER NOT NULL,
    original INTEGER NOT NULL,
    at INTEGER NOT NULL
);
CREATE INDEX uploads_in_order ON uploads (at);

-- attachment_words.py: what is to be said to the network of attachments until it has answered. word: for, fetched or
-- detach; devices: with "for", how many were told of it
CREATE TABLE attachment_words (
    attachment TEXT NOT NULL,
    word TEXT NOT NULL,
    devices INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (attachment, word)
) WITHOUT ROWID;

-- files.py: the files of messages, those from here as well. content: the `content.File` as JSON, without its text and
-- thumbnail; shown: the `events.FileShown`. path: where a person has saved it last; copy: what was fetched unasked.
-- leftovers: what is FastChat's own on the disk, and to be removed. Paths are as the disk has them
CREATE TABLE files (
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    attachment TEXT NOT NULL,
    size INTEGER NOT NULL,
    content BLOB NOT NULL,
    shown BLOB NOT NULL,
    path BLOB,
    copy BLOB,
    PRIMARY KEY (device, n)
);
CREATE INDEX files_by_attachment ON files (attachment);
CREATE INDEX files_kept ON files (size) WHERE copy NOT NULL;
CREATE TABLE leftovers (path BLOB PRIMARY KEY) WITHOUT ROWID;

-- downloads.py: which of them are being fetched, and into which folder; how much of one is there, its part on the disk
-- tells. auto: nobody has asked for it; anew: it has been begun anew because the whole was not what was sent; stopped: the
-- disk does not take more of it, until it is asked for again or the program starts anew
CREATE TABLE downloads (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    directory BLOB NOT NULL,
    auto INTEGER NOT NULL,
    anew INTEGER NOT NULL DEFAULT 0,
    stopped INTEGER NOT NULL DEFAULT 0,
    UNIQUE (device, n, directory)
);
