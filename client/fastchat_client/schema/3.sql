-- trust.py: when the revocation of a device became known here; NULL: it speaks for its account
ALTER TABLE devices ADD COLUMN revoked_at INTEGER;
