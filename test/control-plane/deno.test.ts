import { contractSuite } from './contract/suite.ts'
import { denoRuntime } from './support/other-runtimes.ts'

contractSuite(denoRuntime)
