CREATE TABLE "enrolment_token" (
	"id" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"name" text NOT NULL,
	"hash" "bytea" NOT NULL,
	"replaces" text,
	"created_at" timestamp (3) with time zone NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"used_at" timestamp (3) with time zone,
	"used_by" text,
	CONSTRAINT "enrolment_token_hash_unique" UNIQUE("hash")
);
--> statement-breakpoint
ALTER TABLE "enrolment_token" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "host" (
	"id" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"name" text NOT NULL,
	"state" text DEFAULT 'active' NOT NULL,
	"public_key" text NOT NULL,
	"sealing_key" text NOT NULL,
	"facts" jsonb,
	"agent_version" text,
	"replaces" text,
	"version" integer DEFAULT 1 NOT NULL,
	"enrolled_at" timestamp (3) with time zone NOT NULL,
	"retired_at" timestamp (3) with time zone
);
--> statement-breakpoint
ALTER TABLE "host" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "host_desired" (
	"host" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"generation" bigint NOT NULL,
	"jws" text NOT NULL,
	"sha256" text NOT NULL,
	"pushed_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "host_desired" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "host_reported" (
	"host" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"boot" bigint NOT NULL,
	"seq" bigint NOT NULL,
	"observed_generation" bigint NOT NULL,
	"body" jsonb NOT NULL,
	"received_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "host_reported" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "host_seen" (
	"host" text PRIMARY KEY NOT NULL,
	"boot" bigint NOT NULL,
	"seq" bigint NOT NULL,
	"role" text NOT NULL,
	"epoch" bigint NOT NULL,
	"received_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "tool_key" (
	"id" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"name" text NOT NULL,
	"public_key" text NOT NULL,
	"verbs" jsonb NOT NULL,
	"pairs" jsonb,
	"created_at" timestamp (3) with time zone NOT NULL,
	"revoked_at" timestamp (3) with time zone
);
--> statement-breakpoint
ALTER TABLE "tool_key" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "alarm" (
	"id" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"kind" text NOT NULL,
	"severity" text NOT NULL,
	"state" text NOT NULL,
	"pair" text,
	"host" text,
	"subject" text NOT NULL,
	"message" text NOT NULL,
	"raised_at" timestamp (3) with time zone NOT NULL,
	"acknowledged_at" timestamp (3) with time zone,
	"acknowledged_by" text,
	"cleared_at" timestamp (3) with time zone
);
--> statement-breakpoint
ALTER TABLE "alarm" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "audit" (
	"organisation" text NOT NULL,
	"seq" bigint NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"actor" text NOT NULL,
	"action" text NOT NULL,
	"resource" text NOT NULL,
	"outcome" text NOT NULL,
	"details" jsonb NOT NULL,
	"previous_hash" text NOT NULL,
	"hash" text NOT NULL,
	CONSTRAINT "audit_organisation_seq_pk" PRIMARY KEY("organisation","seq")
);
--> statement-breakpoint
ALTER TABLE "audit" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "event" (
	"organisation" text NOT NULL,
	"seq" bigint NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"kind" text NOT NULL,
	"severity" text NOT NULL,
	"pair" text,
	"host" text,
	"message" text NOT NULL,
	"data" jsonb NOT NULL,
	"origin" text,
	CONSTRAINT "event_organisation_seq_pk" PRIMARY KEY("organisation","seq")
);
--> statement-breakpoint
ALTER TABLE "event" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "command" (
	"jti" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"operation" text NOT NULL,
	"host" text NOT NULL,
	"step" text NOT NULL,
	"jws" text NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"phase" text DEFAULT '' NOT NULL
);
--> statement-breakpoint
ALTER TABLE "command" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "operation" (
	"id" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"pair" text,
	"host" text,
	"kind" text NOT NULL,
	"state" text NOT NULL,
	"work" jsonb NOT NULL,
	"actor" text NOT NULL,
	"reason" text NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"starts_at" timestamp (3) with time zone NOT NULL,
	"look_at" timestamp (3) with time zone,
	"ended_at" timestamp (3) with time zone
);
--> statement-breakpoint
ALTER TABLE "operation" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "pair" (
	"id" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"name" text NOT NULL,
	"state" text NOT NULL,
	"host_a" text NOT NULL,
	"host_b" text NOT NULL,
	"first" text NOT NULL,
	"settings" jsonb NOT NULL,
	"generation" bigint NOT NULL,
	"maintenance_until" timestamp (3) with time zone,
	"maintenance_reason" text,
	"last_switchover" jsonb,
	"version" integer DEFAULT 1 NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"set_up_at" timestamp (3) with time zone
);
--> statement-breakpoint
ALTER TABLE "pair" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE TABLE "api_token" (
	"id" text PRIMARY KEY NOT NULL,
	"organisation" text,
	"name" text NOT NULL,
	"hash" "bytea" NOT NULL,
	"role" text NOT NULL,
	"scopes" jsonb,
	"pairs" jsonb,
	"created_at" timestamp (3) with time zone NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"revoked_at" timestamp (3) with time zone,
	"last_used_at" timestamp (3) with time zone,
	CONSTRAINT "api_token_hash_unique" UNIQUE("hash")
);
--> statement-breakpoint
CREATE TABLE "idempotency" (
	"subject" text NOT NULL,
	"key" text NOT NULL,
	"fingerprint" text NOT NULL,
	"status" integer NOT NULL,
	"body" jsonb,
	"headers" jsonb NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "idempotency_subject_key_pk" PRIMARY KEY("subject","key")
);
--> statement-breakpoint
CREATE TABLE "organisation" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"version" integer DEFAULT 1 NOT NULL,
	"event_seq" bigint DEFAULT 0 NOT NULL,
	"audit_seq" bigint DEFAULT 0 NOT NULL,
	"audit_hash" text DEFAULT '' NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "outbox" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "outbox_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"topic" text NOT NULL,
	"payload" text NOT NULL,
	"qos" integer NOT NULL,
	"retain" boolean NOT NULL,
	"expiry_seconds" integer,
	"not_before" timestamp (3) with time zone NOT NULL,
	"attempts" integer DEFAULT 0 NOT NULL,
	"useless_at" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "rate_bucket" (
	"key" text PRIMARY KEY NOT NULL,
	"tokens" real NOT NULL,
	"at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "witness_vote" (
	"organisation" text NOT NULL,
	"pair" text NOT NULL,
	"inc" text NOT NULL,
	"tl" bigint NOT NULL,
	"promised" bigint NOT NULL,
	"acc_b" bigint NOT NULL,
	"acc_v" jsonb,
	"nonce" text NOT NULL,
	"keys" jsonb NOT NULL,
	"keys_generation" integer NOT NULL,
	"admitted_at" timestamp (3) with time zone NOT NULL,
	"retired_at" timestamp (3) with time zone,
	CONSTRAINT "witness_vote_organisation_pair_pk" PRIMARY KEY("organisation","pair")
);
--> statement-breakpoint
ALTER TABLE "witness_vote" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "enrolment_token" ADD CONSTRAINT "enrolment_token_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "enrolment_token" ADD CONSTRAINT "enrolment_token_replaces_host_id_fk" FOREIGN KEY ("replaces") REFERENCES "public"."host"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "host" ADD CONSTRAINT "host_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "host" ADD CONSTRAINT "host_replaces_host_id_fk" FOREIGN KEY ("replaces") REFERENCES "public"."host"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "host_desired" ADD CONSTRAINT "host_desired_host_host_id_fk" FOREIGN KEY ("host") REFERENCES "public"."host"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "host_desired" ADD CONSTRAINT "host_desired_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "host_reported" ADD CONSTRAINT "host_reported_host_host_id_fk" FOREIGN KEY ("host") REFERENCES "public"."host"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "host_reported" ADD CONSTRAINT "host_reported_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "tool_key" ADD CONSTRAINT "tool_key_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "alarm" ADD CONSTRAINT "alarm_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "audit" ADD CONSTRAINT "audit_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "event" ADD CONSTRAINT "event_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "command" ADD CONSTRAINT "command_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "command" ADD CONSTRAINT "command_operation_operation_id_fk" FOREIGN KEY ("operation") REFERENCES "public"."operation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "command" ADD CONSTRAINT "command_host_host_id_fk" FOREIGN KEY ("host") REFERENCES "public"."host"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "operation" ADD CONSTRAINT "operation_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "operation" ADD CONSTRAINT "operation_pair_pair_id_fk" FOREIGN KEY ("pair") REFERENCES "public"."pair"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "operation" ADD CONSTRAINT "operation_host_host_id_fk" FOREIGN KEY ("host") REFERENCES "public"."host"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "pair" ADD CONSTRAINT "pair_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "pair" ADD CONSTRAINT "pair_host_a_host_id_fk" FOREIGN KEY ("host_a") REFERENCES "public"."host"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "pair" ADD CONSTRAINT "pair_host_b_host_id_fk" FOREIGN KEY ("host_b") REFERENCES "public"."host"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "api_token" ADD CONSTRAINT "api_token_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "witness_vote" ADD CONSTRAINT "witness_vote_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "host_name_of_active" ON "host" USING btree ("organisation","name") WHERE state = 'active';--> statement-breakpoint
CREATE UNIQUE INDEX "alarm_open" ON "alarm" USING btree ("organisation","subject") WHERE state <> 'cleared';--> statement-breakpoint
CREATE INDEX "alarm_organisation_id_index" ON "alarm" USING btree ("organisation","id");--> statement-breakpoint
CREATE UNIQUE INDEX "event_origin" ON "event" USING btree ("host","origin") WHERE origin is not null;--> statement-breakpoint
CREATE INDEX "event_organisation_pair_seq_index" ON "event" USING btree ("organisation","pair","seq");--> statement-breakpoint
CREATE INDEX "command_host_expires_at_index" ON "command" USING btree ("host","expires_at");--> statement-breakpoint
CREATE INDEX "command_operation_index" ON "command" USING btree ("operation");--> statement-breakpoint
CREATE INDEX "operation_organisation_id_index" ON "operation" USING btree ("organisation","id");--> statement-breakpoint
CREATE INDEX "operation_to_look_at" ON "operation" USING btree ("look_at") WHERE look_at is not null;--> statement-breakpoint
CREATE UNIQUE INDEX "operation_open_of_pair" ON "operation" USING btree ("pair") WHERE state in ('scheduled', 'running') and kind <> 'prechecks';--> statement-breakpoint
CREATE UNIQUE INDEX "pair_name" ON "pair" USING btree ("organisation","name") WHERE state <> 'unpaired';--> statement-breakpoint
CREATE INDEX "pair_host_a_index" ON "pair" USING btree ("host_a");--> statement-breakpoint
CREATE INDEX "pair_host_b_index" ON "pair" USING btree ("host_b");--> statement-breakpoint
CREATE INDEX "api_token_organisation_id_index" ON "api_token" USING btree ("organisation","id");--> statement-breakpoint
CREATE INDEX "idempotency_expires_at_index" ON "idempotency" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "outbox_not_before_id_index" ON "outbox" USING btree ("not_before","id");--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "enrolment_token" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "host" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "host_desired" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "host_reported" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "tool_key" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "alarm" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "audit" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "event" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "command" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "operation" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "pair" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "witness_vote" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');