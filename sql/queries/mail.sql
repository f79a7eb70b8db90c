-- Mailboxes. Every statement here is on the path of messages: keep an eye on the plans (PlanTests in tests/test_store_postgres.py).

-- name: store_mail
execute store_mail (
    %(recipients)s, %(users)s, %(devices)s, %(ns)s, %(times)s, %(starts)s, %(sizes)s, %(bodies)s,
    %(most_messages)s, %(most_bytes)s
);

-- name: prepare_store_mail
-- One batch: one statement, one transaction, one commit; one outcome per message, in the order of the batch. A mailbox
-- is full for the first message that does not fit and for all later ones of the batch, so that none overtakes one that
-- was refused. Row numbers rise in the order of the batch. Prepared on every writing connection: planning it costs three
-- times as much as storing one message. The arrays come as literals and the bodies end to end as one value: 500
-- constructor elements, or 500 bodies parsed as elements of an array, cost several times as much.
--   $1 recipients  $2 users  $3 devices  $4 ns  $5 times  $6, $7 where each body starts (from 1) and its size
--   $8 bodies  $9, $10 most messages and bytes of a mailbox
prepare store_mail (
    uuid[], text[], uuid[], bigint[], bigint[], integer[], integer[], bytea, bigint, bigint
) as
with batch as materialized (
    select
        mail.recipient, mail.user_name, mail.device, mail.n, mail.sent_at, mail.size, mail.position,
        substring($8 from mail.start for mail.size) as body
    from unnest($1, $2, $3, $4, $5, $6, $7) with ordinality as mail (recipient, user_name, device, n, sent_at, start, size, position)
),
room as materialized (
    select device, messages, bytes
    from mailbox_sizes where device = any ($1)
    order by device
    for no key update
),
judged as materialized (
    select
        batch.recipient, batch.size, batch.position,
        case
            when room.device is null then 'unknown-device'
            when room.messages + row_number() over earlier > $9
                or room.bytes + sum(batch.size) over earlier > $10 then 'mailbox-full'
            else 'stored'
        end as outcome
    from batch left join room on room.device = batch.recipient
    window earlier as (partition by batch.recipient order by batch.position)
),
growth as (
    update mailbox_sizes
    set messages = mailbox_sizes.messages + added.messages, bytes = mailbox_sizes.bytes + added.bytes
    from (
        select recipient, count(*) as messages, sum(size) as bytes
        from judged where outcome = 'stored' group by recipient
    ) as added
    where mailbox_sizes.device = added.recipient
),
numbered as materialized (
    -- The numbers are drawn one by one, from rows that are sorted already.
    select nextval('messages_id_seq') as id, ordered.*
    from (
        select batch.* from batch join judged using (position) where judged.outcome = 'stored' order by batch.position
    ) as ordered
),
bodies as (
    insert into messages (id, user_name, device, n, sent_at, body)
    select id, user_name, device, n, sent_at, body from numbered
),
waiting as (
    insert into mailboxes (device, message, size) select recipient, id, size from numbered
)
select outcome from judged order by position;

-- name: mailbox
-- The sizes stand beside the rows: no body is read that is not wanted.
select messages.id, messages.user_name, messages.device, messages.n, messages.sent_at, messages.body
from (
    select message, sum(size) over (order by message rows unbounded preceding) - size as before
    from mailboxes
    where device = %(device)s and message <> all (%(in_flight)s::bigint[])
    order by message
    limit %(limit)s
) as page join messages on messages.id = page.message
where page.before < %(enough)s
order by page.message;

-- name: mailbox_size
select messages from mailbox_sizes where device = %(device)s;

-- name: waiting
select device from mailbox_sizes where device = any (%(devices)s::uuid[]) and messages > 0;

-- name: delete_mail
-- Three statements, one transaction. A body is locked before its rows are deleted: of two that delete the last two rows
-- of one body, the second waits for the first, and its third statement sees what the first one did. In one statement
-- each would see the other's row still there, and the body would stay for ever. Every lock is taken in one order:
-- messages by number, then sizes by device.
select from messages where id = any (%(messages)s::bigint[]) order by id for update;
with gone as (
    delete from mailboxes
    using unnest(%(devices)s::uuid[], %(messages)s::bigint[]) as pair (device, message)
    where mailboxes.device = pair.device and mailboxes.message = pair.message
    returning mailboxes.device, mailboxes.size
),
removed as (
    select device, count(*) as messages, sum(size) as bytes from gone group by device
),
locked as materialized (
    select device from mailbox_sizes where device in (select device from removed) order by device for no key update
)
update mailbox_sizes
set messages = mailbox_sizes.messages - removed.messages, bytes = mailbox_sizes.bytes - removed.bytes
from locked join removed using (device)
where mailbox_sizes.device = locked.device;
delete from messages
where id = any (%(messages)s::bigint[])
    and not exists (select from mailboxes where mailboxes.message = messages.id);
