-- The key log: leaves in order, without a gap.

-- name: append_leaves
-- Whoever appends holds the one row of key_log_size until he commits: positions are given out in the order of commits,
-- so a reader never sees a gap. Comes last in its transaction: everyone who registers waits here.
with head as (
    update key_log_size set size = size + cardinality(%(leaves)s::bytea[]) returning size as end_of_log
)
insert into key_log (position, leaf)
select head.end_of_log - cardinality(%(leaves)s::bytea[]) + leaves.place - 1, leaves.leaf
from head cross join unnest(%(leaves)s::bytea[]) with ordinality as leaves (leaf, place);

-- name: log_leaves
select leaf from key_log where position >= %(start)s and position < %(start)s + %(limit)s order by position;
