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

-- name: hold_attachments
execute hold_attachments (%(attachments)s, %(users)s, %(indexes)s);

-- name: present_chunks
execute present_chunks (%(numbers)s, %(indexes)s);

-- name: copy_chunks
-- The one way in that takes bytes as they are: docs/decisions/chunks-in-and-out.md. It fails where a chunk is there
-- already, so these are looked for before it, while their attachments are held.
copy attachment_chunks (attachment, index, data) from stdin (format binary);

-- name: count_chunks
execute count_chunks (%(numbers)s, %(chunks)s, %(now)s);

-- name: prepare_chunk_writer
-- Of a batch of chunks those that may be stored: the place in the batch from 0, and the attachment's number. Their
-- attachments are held from here to the end of the transaction.
--   of each chunk: $1 attachment  $2 whose  $3 index
prepare hold_attachments (uuid[], text[], integer[]) as
with batch as materialized (
    select * from unnest($1, $2, $3) with ordinality as chunk (id, user_name, index, position)
),
held as materialized (
    select number, id, user_name, chunks
    from attachments where id = any ($1)
    order by id
    for no key update
)
select position - 1, held.number
from batch join held on held.id = batch.id and held.user_name = batch.user_name
where batch.index < held.chunks
order by position;
-- Those of them that are there already. No data is read.
--   of each chunk: $1 the attachment's number  $2 index
prepare present_chunks (bigint[], integer[]) as
select attachment_chunks.attachment, attachment_chunks.index
from unnest($1, $2) as asked (attachment, index)
join attachment_chunks using (attachment, index);
--   of each attachment: $1 number  $2 how many chunks are new    $3 seconds since 1970
prepare count_chunks (bigint[], integer[], double precision) as
update attachments
set stored = attachments.stored + added.chunks, changed_at = to_timestamp($3)
from unnest($1, $2) as added (number, chunks)
where attachments.number = added.number;

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
