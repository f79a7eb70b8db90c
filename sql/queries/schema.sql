-- What the migrations themselves need, and the edges of a transaction.

-- name: begin
begin;

-- name: commit
commit;

-- name: rollback
rollback;

-- name: ask
select 1;

-- name: lock_schema
-- One process at a time brings a database up to date; the lock goes with the connection. The number is ours by chance.
select pg_advisory_lock(7205759403792793);

-- name: create_schema_migrations
create table if not exists schema_migrations (
    number integer primary key,
    name text not null,
    checksum bytea not null,                -- SHA-256 of the file
    applied_at timestamptz not null default now()
);

-- name: applied_migrations
select number, name, checksum from schema_migrations order by number;

-- name: record_migration
insert into schema_migrations (number, name, checksum) values (%(number)s, %(name)s, %(checksum)s);
