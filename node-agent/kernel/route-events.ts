import { NETLINK_ROUTE, NetlinkSocket } from './netlink.ts'

/** RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE (linux/rtnetlink.h). */
export const routeGroups = [1, 5, 7, 9, 11] as const

/** Whether anything of links, addresses or routes has changed. What exactly is left to whoever looks. */
export class RouteEvents {
  readonly #socket = new NetlinkSocket(NETLINK_ROUTE, { groups: routeGroups })

  /** Since the last time; never waits. What overran the buffer is a change too. */
  changed(): boolean {
    let any = false
    const { overrun } = this.#socket.drain(() => {
      any = true
    })
    return any || overrun
  }

  close(): void {
    this.#socket.close()
  }
}
