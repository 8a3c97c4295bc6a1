CREATE INDEX "event_at" ON "event" USING brin ("at");--> statement-breakpoint
CREATE INDEX "command_expires_at_index" ON "command" USING btree ("expires_at");