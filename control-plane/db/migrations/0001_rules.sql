-- What the tables' definition cannot say.

-- Heartbeats and rate limits are not worth a line in the write-ahead log: after a crash they are empty, and as before within seconds.
ALTER TABLE "host_seen" SET UNLOGGED;--> statement-breakpoint
ALTER TABLE "rate_bucket" SET UNLOGGED;--> statement-breakpoint
ALTER TABLE "host_seen" SET (fillfactor = 70);--> statement-breakpoint
ALTER TABLE "host_reported" SET (fillfactor = 70);--> statement-breakpoint

-- The row policies hold for the owner of the tables too, whom the control plane connects as.
ALTER TABLE "host" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "enrolment_token" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "host_desired" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "host_reported" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "tool_key" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "pair" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "operation" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "command" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "event" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "alarm" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "audit" FORCE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "witness_vote" FORCE ROW LEVEL SECURITY;--> statement-breakpoint

-- The audit is appended to; changing it wants somebody who first takes this away, and the chain of hashes shows that too.
CREATE FUNCTION "refuse_change_of_audit"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit is append-only';
END $$;--> statement-breakpoint
CREATE TRIGGER "audit_is_append_only" BEFORE UPDATE OR DELETE ON "audit" FOR EACH ROW EXECUTE FUNCTION "refuse_change_of_audit"();--> statement-breakpoint
CREATE TRIGGER "audit_is_not_truncated" BEFORE TRUNCATE ON "audit" FOR EACH STATEMENT EXECUTE FUNCTION "refuse_change_of_audit"();
