-- What files are made of: chunks of one size that nobody here can read. What a file is, stands in a message.

create table attachments (
    number bigint generated always as identity constraint attachments_pkey primary key,
    id uuid not null constraint attachments_id unique,      -- chosen by who uploads it; whoever knows it may fetch it
    -- Whose quota it takes, under whose row of users it was begun. Refers to nothing, as a message's sender does.
    user_name text collate "C" not null,
    chunks integer not null,
    stored integer not null default 0,                      -- how many of them are here; all of them: it is whole
    changed_at timestamptz not null,                        -- when it was begun, or something new of it came last
    devices integer,                                        -- so many were told of it; null: that was not said yet
    readers integer not null default 0,                     -- so many rows has attachment_readers
    constraint attachments_chunks check (chunks > 0 and stored between 0 and chunks),
    constraint attachments_readers check (devices > 0 and readers >= 0)
);
create index attachments_of_user on attachments (user_name);
create index attachments_unfinished on attachments (changed_at) where stored < chunks;
create index attachments_whole on attachments (changed_at) where stored = chunks;

-- Refers to nothing either: an attachment goes at once, its chunks follow in slices (attachment_remains). By number, not
-- by id: the id may be begun again meanwhile.
create table attachment_chunks (
    attachment bigint not null,
    index integer not null,                                 -- from 0
    data bytea not null,
    constraint attachment_chunks_pkey primary key (attachment, index),
    constraint attachment_chunks_size check (octet_length(data) = 65536)
);
-- Ciphertext does not compress.
alter table attachment_chunks alter column data set storage external;

-- Devices that have all of it. A device that is revoked later has read it nonetheless: these refer to no device.
create table attachment_readers (
    attachment bigint not null constraint attachment_readers_attachment references attachments on delete cascade,
    device uuid not null,
    constraint attachment_readers_pkey primary key (attachment, device)
);

-- Attachments that are gone, and may have chunks left.
create table attachment_remains (
    attachment bigint constraint attachment_remains_pkey primary key
);

-- A chunk is 33 rows of its toast table: by the default, a fifth of all that is stored would lie there dead.
alter table attachment_chunks set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_threshold = 10000
);
