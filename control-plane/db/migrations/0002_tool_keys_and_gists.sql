ALTER TABLE "host_desired" ADD COLUMN "tools_version" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "host_reported" ADD COLUMN "gist" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "organisation" ADD COLUMN "tools_version" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
CREATE INDEX "host_desired_organisation_tools_version_index" ON "host_desired" USING btree ("organisation","tools_version");