CREATE INDEX "enrolment_token_organisation_id_index" ON "enrolment_token" USING btree ("organisation","id");--> statement-breakpoint
CREATE INDEX "host_organisation_id_index" ON "host" USING btree ("organisation","id");--> statement-breakpoint
CREATE INDEX "host_retired" ON "host" USING btree ("retired_at") WHERE state = 'retired';--> statement-breakpoint
CREATE INDEX "alarm_organisation_state_id_index" ON "alarm" USING btree ("organisation","state","id");--> statement-breakpoint
CREATE INDEX "alarm_pair_id_index" ON "alarm" USING btree ("pair","id");--> statement-breakpoint
CREATE INDEX "alarm_open_of_pair" ON "alarm" USING btree ("pair") WHERE state <> 'cleared';--> statement-breakpoint
CREATE INDEX "operation_organisation_state_id_index" ON "operation" USING btree ("organisation","state","id");--> statement-breakpoint
CREATE INDEX "operation_of_pair" ON "operation" USING btree ("pair","id") WHERE pair is not null;--> statement-breakpoint
CREATE INDEX "pair_organisation_id_index" ON "pair" USING btree ("organisation","id");