CREATE TABLE "host_inventory" (
	"host" text PRIMARY KEY NOT NULL,
	"organisation" text NOT NULL,
	"boot" bigint NOT NULL,
	"seq" bigint NOT NULL,
	"summary" jsonb NOT NULL,
	"network" jsonb NOT NULL,
	"storage" jsonb NOT NULL,
	"received_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "host_inventory" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "host_inventory" ADD CONSTRAINT "host_inventory_host_host_id_fk" FOREIGN KEY ("host") REFERENCES "public"."host"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "host_inventory" ADD CONSTRAINT "host_inventory_organisation_organisation_id_fk" FOREIGN KEY ("organisation") REFERENCES "public"."organisation"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE POLICY "of_one_organisation" ON "host_inventory" AS PERMISSIVE FOR ALL TO public USING (organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*');--> statement-breakpoint
ALTER TABLE "host_inventory" FORCE ROW LEVEL SECURITY;
