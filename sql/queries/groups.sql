-- Groups: their chains and who is in them.

-- name: add_group
insert into groups (id, length, head, title, deleted)
values (%(group)s, 1, %(head)s, %(title)s, %(deleted)s)
on conflict do nothing
returning id;

-- name: lock_group
-- Whoever appends to a chain holds the group first, so that its length stays true until he has.
select length from groups where id = %(group)s for no key update;

-- name: grow_group
update groups
set length = %(position)s + 1, head = %(head)s, title = %(title)s, deleted = %(deleted)s
where id = %(group)s;

-- name: add_group_statement
insert into group_statements (group_id, position, body, signature)
values (%(group)s, %(position)s, %(body)s, %(signature)s);

-- name: put_group_members
insert into group_members (group_id, user_name, role, since, until, invited_by, history)
select %(group)s, member.*
from unnest(
    %(users)s::text[], %(roles)s::text[], %(sinces)s::integer[], %(untils)s::integer[], %(inviters)s::text[],
    %(histories)s::integer[]
) as member
on conflict (group_id, user_name) do update
set role = excluded.role, since = excluded.since, until = excluded.until, invited_by = excluded.invited_by,
    history = excluded.history;

-- name: group
-- One statement: a chain and its members as they were at one moment.
select
    groups.length, groups.head, groups.title, groups.deleted,
    member.user_name, member.role, member.since, member.until, member.invited_by, member.history
from groups left join group_members as member on member.group_id = groups.id
where groups.id = %(group)s
order by member.user_name;

-- name: group_statements
select body, signature from group_statements
where group_id = %(group)s and position >= %(start)s
order by position
limit %(limit)s;

-- name: groups_of
select groups.id, coalesce(member.until, groups.length)
from group_members as member join groups on groups.id = member.group_id
where member.user_name = %(user)s
order by member.until is not null or groups.deleted, groups.id
limit %(limit)s;

-- name: group_count
select count(*)
from group_members as member join groups on groups.id = member.group_id
where member.user_name = %(user)s and member.role <> 'gone' and (member.role <> 'invited' or %(invited)s)
    and not groups.deleted;

-- name: group_devices
select devices.id
from group_members as member join devices on devices.user_name = member.user_name
where member.group_id = %(group)s and member.role in ('owner', 'admin', 'member') and devices.revoked_at is null
order by member.user_name, devices.number;
