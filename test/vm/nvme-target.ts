/** A namespace that two ports of one subsystem offer over TCP, and this machine's own connections to both (nvmet's configfs). */
const subsystem = 'nqn.2026-01.example.storage:shared'
const host = 'nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-2fa1-11d2-883f-0016d3cca427'

export const nvmeTarget = `
for module in loop nvmet-tcp nvme-tcp; do modprobe $module; done
truncate --size=64M /var/lib/namespace
device=$(losetup --find --show /var/lib/namespace)
cd /sys/kernel/config/nvmet
mkdir -p subsystems/${subsystem}/namespaces/1
echo 1 > subsystems/${subsystem}/attr_allow_any_host
printf %s $device > subsystems/${subsystem}/namespaces/1/device_path
echo 1 > subsystems/${subsystem}/namespaces/1/enable
for port in 1 2; do
  mkdir ports/$port
  echo tcp > ports/$port/addr_trtype
  echo ipv4 > ports/$port/addr_adrfam
  printf 127.0.0.1 > ports/$port/addr_traddr
  printf 442$port > ports/$port/addr_trsvcid
  ln -s /sys/kernel/config/nvmet/subsystems/${subsystem} ports/$port/subsystems/
  echo transport=tcp,traddr=127.0.0.1,trsvcid=442$port,nqn=${subsystem},hostnqn=${host} > /dev/nvme-fabrics
done`
