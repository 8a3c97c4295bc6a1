import { contractSuite } from './contract/suite.ts'
import { nodeRuntime } from './support/runtime.ts'

contractSuite(() => nodeRuntime({ broker: 'open' }))
