import type { DataNode } from './types.ts'

export const otherNode = (node: DataNode): DataNode => (node === 'a' ? 'b' : 'a')
