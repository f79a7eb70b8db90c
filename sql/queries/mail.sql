-- Mailboxes. Every statement here is on the path of messages: keep an eye on the plans (PlanTests in tests/test_store_postgres.py).

-- name: store_mail
execute store_mail (
    %(recipients)s, %(numbers)s, %(senders)s, %(sizes)s,
    %(users)s, %(devices)s, %(ns)s, %(times)s, %(starts)s, %(lengths)s, %(bodies)s,
    %(most_messages)s, %(most_bytes)s, %(share_messages)s, %(share_bytes)s, %(more_messages)s, %(more_bytes)s
);

-- name: prepare_store_mail
-- One batch: one statement, one transaction, one commit; one outcome per recipient, in the order of the batch. A mailbox
-- is full for the first message that does not fit and for all later ones of the batch, so that none overtakes one that
-- was refused; and so is a sender's share of it (docs/decisions/mailbox-shares.md). A body is there once, however many
-- get it. Row numbers rise in the order of the bodies. Prepared on every writing connection: planning it costs three
-- times as much as storing one message. The arrays come as literals and the bodies end to end as one value: 500
-- constructor elements, or 500 bodies parsed as elements of an array, cost several times as much.
--   of each recipient: $1 device  $2 which body it gets (from 1)  $3 whose  $4 its size
--   of each body: $5 user  $6 device  $7 n  $8 time  $9, $10 where it starts (from 1) and its size  $11 all of them
--   $12, $13 most messages and bytes of a mailbox  $14, $15 of these, of one account
--   $16, $17 messages and bytes, more than which the batch has for no mailbox
prepare store_mail (
    uuid[], integer[], text[], integer[], text[], uuid[], bigint[], bigint[], integer[], integer[], bytea,
    bigint, bigint, bigint, bigint, bigint, bigint
) as
with batch as materialized (
    select * from unnest($1, $2, $3, $4) with ordinality as mail (recipient, number, user_name, size, position)
),
room as materialized (
    select device, messages, bytes
    from mailbox_sizes where device = any ($1)
    order by device
    for no key update
),
crowded as materialized (
    -- Where somebody could come to more than a share. With less than one in it a mailbox is in nobody's way, and nothing
    -- is counted; nor is it where nothing fits any more.
    select room.device, devices.user_name as owner
    from room join devices on devices.id = room.device
    where (room.messages + $16 > $14 or room.bytes + $17 > $15) and room.messages < $12 and room.bytes < $13
),
held as materialized (
    select asked.recipient as device, asked.user_name, sender.messages, sender.bytes
    from (select distinct recipient, user_name from batch join crowded on crowded.device = batch.recipient) as asked
    cross join lateral (
        select count(*) as messages, sum(size) as bytes
        from mailboxes where mailboxes.device = asked.recipient and mailboxes.user_name = asked.user_name
    ) as sender
),
asking as (
    -- What one has on one's own devices takes nothing from anybody else.
    select
        batch.recipient, batch.number, batch.user_name, batch.size, batch.position, room.device, room.messages, room.bytes,
        batch.user_name <> crowded.owner and (
            coalesce(held.messages, 0) + row_number() over of_sender > $14
            or coalesce(held.bytes, 0) + sum(batch.size) over of_sender > $15
        ) is true as is_over
    from batch
    left join room on room.device = batch.recipient
    left join crowded on crowded.device = batch.recipient
    left join held on held.device = batch.recipient and held.user_name = batch.user_name
    window of_sender as (partition by batch.recipient, batch.user_name order by batch.position)
),
judged as materialized (
    select
        recipient, number, user_name, size, position,
        case
            when device is null then 'unknown-device'
            when is_over then 'share-full'
            when messages + count(*) filter (where is_over is not true) over earlier > $12
                or bytes + sum(size) filter (where is_over is not true) over earlier > $13 then 'mailbox-full'
            else 'stored'
        end as outcome
    from asking
    window earlier as (partition by recipient order by position)
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
    -- One by one, from rows that come sorted.
    select nextval('messages_id_seq') as id, body.*
    from unnest($5, $6, $7, $8, $9, $10) with ordinality as body (user_name, device, n, sent_at, start, size, number)
),
bodies as (
    insert into messages (id, user_name, device, n, sent_at, body)
    select id, user_name, device, n, sent_at, substring($11 from start for size) from numbered
    where number in (select number from judged where outcome = 'stored')
),
waiting as (
    -- Picked from an array: what many rows and many bodies would be joined by, nobody can estimate here.
    insert into mailboxes (device, message, size, user_name)
    select recipient, (array(select id from numbered order by number))[number], size, user_name
    from judged where outcome = 'stored'
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
