ALTER TABLE "host_desired" ADD COLUMN "push_at" timestamp (3) with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
CREATE INDEX "host_desired_push_at_index" ON "host_desired" USING btree ("push_at");--> statement-breakpoint
CREATE INDEX "operation_ended" ON "operation" USING btree ("ended_at") WHERE ended_at is not null;