-- A device that its account has revoked stays here: its id is never given to another, nor to itself again. Nothing else of
-- it is kept, and without a row in mailbox_sizes nothing is stored for it.
alter table devices add column revoked_at timestamptz;      -- null: it speaks for its account
