ALTER TABLE "witness_vote" ADD COLUMN "admitted_in" text DEFAULT '' NOT NULL;--> statement-breakpoint

-- Those that vote now do so here. The row policies show a migration nothing unless it says whose rows it means.
SELECT set_config('app.organisation', '*', true);--> statement-breakpoint
UPDATE "witness_vote" SET "admitted_in" = (SELECT system_identifier FROM pg_control_system()) || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || 'witness_vote'::regclass::oid;--> statement-breakpoint
SELECT set_config('app.organisation', '', true);
