-- What devices publish so that others can write to them.

-- name: put_prekey
insert into prekeys (device, kind, body, signature) values (%(device)s, %(kind)s, %(body)s, %(signature)s)
on conflict (device, kind) do update set body = excluded.body, signature = excluded.signature;

-- name: add_one_time_keys
-- In the order given. What is there already, claimed or not, stays as it is.
insert into one_time_keys (device, body, signature)
select %(device)s, statement.body, statement.signature
from unnest(%(bodies)s::bytea[], %(signatures)s::bytea[]) with ordinality as statement (body, signature, position)
order by statement.position
on conflict on constraint one_time_keys_unique do nothing;

-- name: drop_old_one_time_keys
-- The newest are kept; of the claimed ones, which are only marks, as many again. A key that is being claimed right now
-- is locked: whoever deletes waits for it, and finds it claimed.
with unclaimed as (
    select number from one_time_keys where device = %(device)s and not claimed
    order by number desc offset %(kept)s
),
marks as (
    select number from one_time_keys where device = %(device)s and claimed
    order by number desc offset %(kept)s
)
delete from one_time_keys
where (not claimed and number in (select number from unclaimed)) or (claimed and number in (select number from marks));

-- name: count_one_time_keys
select count(*) from one_time_keys where device = %(device)s and not claimed;

-- name: bundles
select asked.device, seal.body, seal.signature, fallback.body, fallback.signature
from unnest(%(devices)s::uuid[]) with ordinality as asked (device, position)
join prekeys as seal on seal.device = asked.device and seal.kind = 'seal'
join prekeys as fallback on fallback.device = asked.device and fallback.kind = 'fallback'
order by asked.position;

-- name: claim_one_time_keys
-- The oldest key of each device that nobody else is claiming at this moment.
with oldest as materialized (
    select free.number
    from unnest(%(devices)s::uuid[]) as asked (device)
    cross join lateral (
        select number from one_time_keys where device = asked.device and not claimed
        order by number limit 1
        for update skip locked
    ) as free
)
update one_time_keys set claimed = true
from oldest
where one_time_keys.number = oldest.number
returning one_time_keys.device, one_time_keys.body, one_time_keys.signature;
