-- Accounts, their devices, what devices publish, the key log and invites.
--
-- A migration is never edited once it has left the developer's machine: its checksum is kept, and a database to which
-- another text was applied is refused. Names are compared byte by byte (collate "C"), whatever the database's locale.

create table users (
    name text collate "C" primary key,
    rsa_public_key bytea not null,          -- PEM, PKCS#1: the root of everything that this account says
    scram_salt bytea not null,              -- RFC 5802: enough to check a password login, useless to log in with
    scram_iterations integer not null,
    scram_stored_key bytea not null,
    scram_server_key bytea not null,
    created_at timestamptz not null default now(),
    -- What a name may look like is decided in fastchat/identity/names.py; this only keeps the index sane.
    constraint users_name_length check (octet_length(name) between 1 and 64),
    constraint users_scram check (
        scram_iterations > 0 and octet_length(scram_stored_key) = 32 and octet_length(scram_server_key) = 32
    )
);

-- An account's chain of signed statements, exactly as they were signed.
create table links (
    user_name text collate "C" not null constraint links_user references users,
    position integer not null,
    body bytea not null,
    signature bytea not null,
    -- Two devices that append at once cannot both become the same link.
    constraint links_pkey primary key (user_name, position),
    constraint links_position check (position >= 0)
);

create table devices (
    id uuid constraint devices_pkey primary key,            -- on the wire: the same 32 hexadecimal digits, no dashes
    number bigint generated always as identity,             -- oldest first; a time would not be unique
    user_name text collate "C" not null constraint devices_user references users,
    ed25519 bytea not null,
    curve25519 bytea not null,
    constraint devices_keys check (octet_length(ed25519) = 32 and octet_length(curve25519) = 32)
);
create index devices_of_user on devices (user_name, number);

-- The two prekeys of which a device has one at a time.
create table prekeys (
    device uuid not null constraint prekeys_device references devices,
    kind text collate "C" not null,
    body bytea not null,
    signature bytea not null,
    constraint prekeys_pkey primary key (device, kind),
    constraint prekeys_kind check (kind in ('fallback', 'seal'))
);

-- A claimed key stays for a while as a mark: its device may publish it once more when the answer to its first
-- publish was lost, and no key may be given out twice.
create table one_time_keys (
    number bigint generated always as identity primary key,     -- the order of publishing, which is that of claiming
    device uuid not null constraint one_time_keys_device references devices,
    digest bytea not null generated always as (sha256(body)) stored,
    body bytea not null,
    signature bytea not null,
    claimed boolean not null default false,
    constraint one_time_keys_unique unique (device, digest)
);
create index one_time_keys_unclaimed on one_time_keys (device, number) where not claimed;
create index one_time_keys_claimed on one_time_keys (device, number) where claimed;

-- The leaves of the key log, in order and without a gap. key_log_size holds one row: whoever appends updates it first
-- and so holds the log until he commits. A sequence would leave a gap at every rollback, and max(position) + 1 races.
create table key_log (
    position bigint primary key,
    leaf bytea not null,
    constraint key_log_position check (position >= 0),
    constraint key_log_leaf check (octet_length(leaf) = 72)
);
create table key_log_size (
    single boolean primary key default true,
    size bigint not null,
    constraint key_log_size_single check (single),
    constraint key_log_size_size check (size >= 0)
);
insert into key_log_size (size) values (0);

create table invites (
    digest bytea primary key,               -- SHA-256 of the token: a copy of this table invites nobody
    uses integer,                           -- null: any number
    used integer not null default 0,
    expires_at timestamptz,                 -- null: never
    constraint invites_digest check (octet_length(digest) = 32),
    constraint invites_used check (used >= 0 and (uses is null or used <= uses))
);
