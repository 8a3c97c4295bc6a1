DROP INDEX "operation_open_of_pair";--> statement-breakpoint
CREATE UNIQUE INDEX "operation_scheduled_of_pair" ON "operation" USING btree ("pair") WHERE state = 'scheduled';--> statement-breakpoint
CREATE UNIQUE INDEX "operation_open_of_pair" ON "operation" USING btree ("pair") WHERE state = 'running' and kind not in ('prechecks', 'settings');