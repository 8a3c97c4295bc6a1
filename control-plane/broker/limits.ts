/** Larger than any document; a packet beyond it is refused by the broker as well. */
export const packetBytesMax = 256 * 1024
