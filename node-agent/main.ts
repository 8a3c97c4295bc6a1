import { loadConfig } from './config.ts'

export async function runAgent(configPath: string): Promise<void> {
  const config = loadConfig(configPath)
  void config
}
