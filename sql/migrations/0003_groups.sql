-- Groups: where each one's chain of signed statements has come to, who is in it, and the chain itself. What a statement
-- may do is decided in fastchat/identity/groups.py; nothing here says who may do what.

create table groups (
    id uuid constraint groups_pkey primary key,             -- on the wire: the same 32 hexadecimal digits, no dashes
    length integer not null,                                -- whoever appends holds this row until he commits
    head bytea not null,                                    -- SHA-256 of the last statement's body
    title bytea not null,                                   -- SHA-256 of a salted title: the server knows no name of a group
    deleted boolean not null default false,
    constraint groups_length check (length > 0),
    constraint groups_digests check (octet_length(head) = 32 and octet_length(title) = 32)
);

-- Exactly as they were signed.
create table group_statements (
    group_id uuid not null constraint group_statements_group references groups,
    position integer not null,
    body bytea not null,
    signature bytea not null,
    constraint group_statements_pkey primary key (group_id, position),
    constraint group_statements_position check (position >= 0)
);

-- Who has gone stays: he may read the chain up to where he left it, and a return is no first time.
create table group_members (
    group_id uuid not null constraint group_members_group references groups,
    user_name text collate "C" not null constraint group_members_user references users,
    role text collate "C" not null,
    since integer not null,                                 -- the chain's length from which this is so
    until integer,                                          -- the length up to which somebody who has gone may read it
    invited_by text collate "C" not null,                   -- empty: the one who created it
    history integer not null,                               -- days of it that the invitation lets him have
    constraint group_members_pkey primary key (group_id, user_name),
    constraint group_members_role check (role in ('owner', 'admin', 'member', 'invited', 'gone')),
    constraint group_members_until check ((role = 'gone') = (until is not null)),
    constraint group_members_numbers check (since >= 0 and until >= 0 and history >= 0)
);
create index groups_of_user on group_members (user_name, group_id);

-- Whose message a row brings. A group's message may come to a thousand mailboxes at once, each fuller than a share: to
-- count what one sender has in each of them must not read all that is there (docs/decisions/mailbox-shares.md).
alter table mailboxes add column user_name text collate "C";
update mailboxes set user_name = messages.user_name from messages where messages.id = mailboxes.message;
alter table mailboxes alter column user_name set not null;
create index mailboxes_of_sender on mailboxes (device, user_name);
