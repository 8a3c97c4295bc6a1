/** Loaded into each test file's process by `test/run.ts` (`--import`), not by the runner's own. */

import { endAfterTests, graceMs } from './fixtures/end-after-tests.ts'

// Node's runner tells its files so; nothing public does (`test_runner/runner.js`).
if (process.env.NODE_TEST_CONTEXT !== undefined) endAfterTests({ graceMs })
