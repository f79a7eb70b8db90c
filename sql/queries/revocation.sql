-- What is taken away with a device. One transaction; locks as in mail.sql: bodies by number, then the size.

-- name: revoke_device
update devices set revoked_at = now()
where id = %(device)s and user_name = %(user)s and revoked_at is null
returning id;

-- name: drop_prekeys
delete from prekeys where device = %(device)s;
delete from one_time_keys where device = %(device)s;

-- name: lock_mail_of_device
select id from messages
where id in (select message from mailboxes where device = %(device)s)
order by id
for update;

-- name: drop_mail_of_device
-- Who stores mail for it waits from the first statement on, and then finds no mailbox.
select from mailbox_sizes where device = %(device)s for update;
delete from mailboxes where device = %(device)s returning message;

-- name: drop_mailbox
delete from mailbox_sizes where device = %(device)s;
delete from messages
where id = any (%(messages)s::bigint[])
    and not exists (select from mailboxes where mailboxes.message = messages.id);
