import { contractSuite } from './contract/suite.ts'
import { workerdRuntime } from './support/other-runtimes.ts'

contractSuite(workerdRuntime)
