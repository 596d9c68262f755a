#!/bin/sh
# Makes a Debian disk for the machine of `python -m tests.qemu`: kernel, systemd, Docker, Python with the locked
# packages. image.py runs it as root in a mount and process namespace of its own, so that nothing of it stays.
#
# What belongs here: what the machine consists of. What does not: what runs in it.
#
#   recipe.sh FOLDER MIRROR SUITE WHEELS      leaves disk, kernel, initrd, key and key.pub in FOLDER
set -eu
folder=$1 mirror=$2 suite=$3 wheels=$4
root="$folder/root"
say() { echo "image: $*"; }

say "fetching Debian $suite"
packages=systemd-sysv,udev,dbus,openssh-server,linux-image-amd64,initramfs-tools,kmod,zstd
packages=$packages,docker.io,docker-registry,iptables,nftables,libnftables1,ipvsadm,busybox-static
packages=$packages,python3,python3-venv,iproute2,iputils-ping,procps,tcpdump
debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >"$folder/debootstrap.log" 2>&1 ||
    { tail -n 20 "$folder/debootstrap.log"; exit 1; }

say "configuring it"
mount -t proc proc "$root/proc"
in_root() { env -i LC_ALL=C HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@"; }
echo swarmpy-qemu >"$root/etc/hostname"
echo '127.0.0.1 localhost swarmpy-qemu' >"$root/etc/hosts"
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
printf '/dev/vda / ext4 defaults,noatime 0 0\n' >"$root/etc/fstab"
cat >"$root/etc/systemd/network/10-eth0.network" <<'END'
[Match]
Name=eth0
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
END
# Nothing may start by itself but the way in: what is tested starts the Engine, and emulation is slow.
in_root systemctl enable --quiet systemd-networkd.service
in_root systemctl disable --quiet docker.service docker.socket containerd.service docker-registry.service
in_root systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer systemd-timesyncd.service getty@tty1.service serial-getty@ttyS0.service
printf 'UseDNS no\nUsePAM no\nPermitRootLogin prohibit-password\n' >"$root/etc/ssh/sshd_config.d/machine.conf"
rm -f "$folder/key" "$folder/key.pub"
ssh-keygen -q -t ed25519 -N '' -C swarmpy-qemu -f "$folder/key"
install -d -m 700 "$root/root/.ssh"
install -m 600 "$folder/key.pub" "$root/root/.ssh/authorized_keys"
echo 'MODULES=list' >"$root/etc/initramfs-tools/conf.d/machine"
printf 'virtio_pci\nvirtio_blk\nvirtio_net\next4\n' >>"$root/etc/initramfs-tools/modules"
in_root update-initramfs -u >/dev/null 2>&1

say "installing the locked Python packages"
mkdir "$root/wheels"
cp "$wheels"/*.whl "$root/wheels/"
# Their hashes were checked when they were fetched.
in_root sh -c 'python3 -m venv /opt/venv && /opt/venv/bin/python -m pip install --quiet --no-index --no-deps \
    --disable-pip-version-check /wheels/*.whl' >"$folder/pip.log" 2>&1 ||
    { tail -n 20 "$folder/pip.log"; exit 1; }
rm -rf "$root/wheels" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
umount "$root/proc"

say "packing the disk"
cp "$root"/boot/vmlinuz-* "$folder/kernel"
cp "$root"/boot/initrd.img-* "$folder/initrd"
truncate -s 8G "$folder/disk"
mke2fs -q -t ext4 -L swarmpy -m 0 -E lazy_itable_init=1 -d "$root" "$folder/disk"
rm -rf "$root"
