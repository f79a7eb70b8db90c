-- Accounts, chains of links, devices and invites.

-- name: use_invite
-- The row stays locked until the registration commits: the last use is given out once.
update invites set used = used + 1
where digest = %(digest)s and (uses is null or used < uses) and (expires_at is null or expires_at > clock_timestamp())
returning used;

-- name: find_invite
select 1 from invites
where digest = %(digest)s and (uses is null or used < uses) and (expires_at is null or expires_at > clock_timestamp());

-- name: add_invite
insert into invites (digest, uses, expires_at) values (%(digest)s, %(uses)s, to_timestamp(%(expires)s))
on conflict do nothing;

-- name: add_user
insert into users (name, rsa_public_key, scram_salt, scram_iterations, scram_stored_key, scram_server_key)
values (%(name)s, %(rsa_public_key)s, %(salt)s, %(iterations)s, %(stored_key)s, %(server_key)s);

-- name: user
select name, rsa_public_key, scram_salt, scram_iterations, scram_stored_key, scram_server_key
from users where name = %(name)s;

-- name: lock_user
-- Whoever appends to a chain holds the account first, so that its length stays true until he has.
select name from users where name = %(name)s for no key update;

-- name: chain_length
select count(*) from links where user_name = %(name)s;

-- name: add_link
insert into links (user_name, position, body, signature) values (%(name)s, %(position)s, %(body)s, %(signature)s);

-- name: links
select user_name, body, signature from links where user_name = any (%(names)s::text[]) order by user_name, position;

-- name: add_device
-- A device and its empty mailbox.
with device as (
    insert into devices (id, user_name, ed25519, curve25519)
    values (%(device)s, %(user)s, %(ed25519)s, %(curve25519)s)
    returning id
)
insert into mailbox_sizes (device) select id from device;

-- name: device
select id, user_name, ed25519, curve25519 from devices where id = %(device)s and revoked_at is null;

-- name: devices
select id, user_name, ed25519, curve25519 from devices
where user_name = any (%(names)s::text[]) and revoked_at is null
order by user_name, number;

-- name: lock_device
-- Whoever publishes holds the device first: two publishes at once would each keep too many keys.
select id from devices where id = %(device)s and revoked_at is null for no key update;
