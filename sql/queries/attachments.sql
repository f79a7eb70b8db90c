-- Attachments and their chunks. Whoever changes an attachment holds its row; whoever begins one holds the account's.

-- name: missing_chunks
-- One statement: whose it is, how many chunks it has and which of them are missing, at one moment. No data is read.
select attachments.user_name, attachments.chunks, gap.first, gap.past
from attachments left join lateral (
    select before + 1 as first, index as past
    from (
        select index, lag(index, 1, -1) over (order by index) as before
        from (
            select index from attachment_chunks where attachment = attachments.number
            union all
            select attachments.chunks
        ) as present
    ) as step
    where index > before + 1
    order by index
    limit %(limit)s
) as gap on true
where attachments.id = %(attachment)s
order by gap.first;

-- name: add_attachment
insert into attachments (id, user_name, chunks, changed_at)
values (%(attachment)s, %(user)s, %(chunks)s, to_timestamp(%(now)s))
on conflict (id) do nothing
returning number;

-- name: chunks_of_user
select sum(chunks) from attachments where user_name = %(user)s;

-- name: store_chunks
execute store_chunks (
    %(attachments)s, %(users)s, %(indexes)s, decode(%(data)s, 'base64'), %(now)s
);

-- name: prepare_store_chunks
-- One batch: one statement, one transaction, one commit; for each chunk whether it is there now, in the order of the
-- batch. The data comes end to end as one value, in base64: what that costs, and what else was tried, is in
-- docs/decisions/chunks-in-and-out.md.
--   of each chunk: $1 attachment  $2 whose  $3 index   $4 all data   $5 seconds since 1970
prepare store_chunks (uuid[], text[], integer[], bytea, double precision) as
with batch as materialized (
    select * from unnest($1, $2, $3) with ordinality as chunk (id, user_name, index, position)
),
held as materialized (
    select number, id, user_name, chunks
    from attachments where id = any ($1)
    order by id
    for no key update
),
good as materialized (
    select held.number, batch.index, batch.position
    from batch join held on held.id = batch.id and held.user_name = batch.user_name
    where batch.index < held.chunks
),
added as (
    insert into attachment_chunks (attachment, index, data)
    select number, index, substring($4 from ((position - 1) * 65536 + 1)::integer for 65536)
    from (select number, index, position from good order by position) as chunk
    on conflict do nothing
    returning attachment
),
grown as (
    update attachments
    set stored = attachments.stored + growth.chunks, changed_at = to_timestamp($5)
    from (select attachment, count(*) as chunks from added group by attachment) as growth
    where attachments.number = growth.attachment
)
select good.position is not null from batch left join good using (position) order by position;

-- name: chunks
-- Through a binary cursor the data comes as it is, not in hexadecimal (docs/decisions/chunks-in-and-out.md). What is
-- asked in one query is one transaction: the cursor goes with it.
declare chunks no scroll binary cursor for
select (
    select attachment_chunks.data
    from attachments join attachment_chunks on attachment_chunks.attachment = attachments.number
    where attachments.id = wanted.id and attachments.stored = attachments.chunks
        and attachment_chunks.index = wanted.index
)
from unnest(%(attachments)s::uuid[], %(indexes)s::integer[]) with ordinality as wanted (id, index, position)
order by wanted.position;
fetch all from chunks;

-- name: expect_readers
update attachments set devices = %(devices)s
where id = %(attachment)s and user_name = %(user)s
returning number, readers >= devices;

-- name: add_reader
with held as materialized (
    select number from attachments
    where id = %(attachment)s and user_name <> %(user)s and stored = chunks
    for no key update
),
added as (
    insert into attachment_readers (attachment, device) select number, %(device)s from held
    on conflict do nothing
    returning attachment
)
update attachments set readers = readers + 1
from added
where attachments.number = added.attachment
returning attachments.number, attachments.readers >= attachments.devices;

-- name: remove_attachment
with gone as (
    delete from attachments where number = %(number)s returning number
)
insert into attachment_remains (attachment) select number from gone;

-- name: detach
with gone as (
    delete from attachments where id = %(attachment)s and user_name = %(user)s returning number
)
insert into attachment_remains (attachment) select number from gone returning attachment;

-- name: remove_old_attachments
-- What somebody is changing at this moment is not old, or will be found the next time.
with unfinished as materialized (
    select number from attachments
    where stored < chunks and changed_at <= to_timestamp(%(unfinished)s)
    order by changed_at
    limit %(limit)s
    for update skip locked
),
whole as materialized (
    select number from attachments
    where stored = chunks and changed_at <= to_timestamp(%(whole)s)
    order by changed_at
    limit %(limit)s
    for update skip locked
),
gone as (
    delete from attachments using (select number from unfinished union all select number from whole) as old
    where attachments.number = old.number returning attachments.number
)
insert into attachment_remains (attachment) select number from gone returning attachment;

-- name: drop_remains
-- A slice of what is left of one attachment, and of which: of one that nobody else is dropping, where none is named.
-- Without any chunk left, its row goes too. No row: there is nothing to drop.
with one as materialized (
    select attachment from attachment_remains
    where attachment = coalesce(%(number)s, attachment)
    limit 1
    for update skip locked
),
slice as materialized (
    select one.attachment, attachment_chunks.index
    from one join attachment_chunks using (attachment)
    limit %(limit)s
),
dropped as (
    delete from attachment_chunks using slice
    where attachment_chunks.attachment = slice.attachment and attachment_chunks.index = slice.index
),
finished as (
    delete from attachment_remains using one
    where attachment_remains.attachment = one.attachment and (select count(*) from slice) < %(limit)s
)
select (select count(*) from slice) from one;
