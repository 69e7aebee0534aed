//! From how far an address can be reached: a registry may not lead this machine to a place that is more internal than the
//! registry itself (token services and redirects are addresses that a stranger chose).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From the most public to the most internal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    Public,
    /// Of this network.
    Private,
    /// Of this machine.
    Loopback,
    /// Link-local addresses, where clouds serve their metadata, and those that no host has. No registry leads here.
    Never,
}

impl Reach {
    pub fn of(address: IpAddr) -> Reach {
        match address {
            IpAddr::V4(address) => v4(address),
            IpAddr::V6(address) => v6(address),
        }
    }
}

/// RFC 6890 and the IANA registry of special-purpose addresses.
fn v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [127 | 0, ..] => Reach::Loopback,
        [169, 254, ..] | [224..=255, ..] => Reach::Never,
        // The metadata service of one cloud lies within the addresses of carriers.
        [100, 100, 100, 200] => Reach::Never,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] | [192, 0, 0, _] => {
            Reach::Private
        }
        _ => Reach::Public,
    }
}

fn v6(address: Ipv6Addr) -> Reach {
    if let Some(inner) = embedded(address) {
        return v4(inner);
    }
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Reach::Loopback,
        // Of one cloud's metadata service.
        [0xfd00, 0xec2, ..] => Reach::Never,
        // fe80::/10, and fec0::/10, which was once local to a site.
        [first, ..] if first & 0xffc0 == 0xfe80 => Reach::Never,
        [first, ..] if first & 0xff00 == 0xff00 => Reach::Never,
        [first, ..] if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 => Reach::Private,
        _ => Reach::Public,
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped, compatible, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let last = || Ipv4Addr::from((u32::from(segments[6]) << 16) | u32::from(segments[7]));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, ..] => Some(last()),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(last()),
        [0x64, 0xff9b, ..] => Some(last()),
        [0x2002, high, low, ..] => Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // hazard: I14
    #[test]
    fn every_spelling_of_an_internal_address_is_known() {
        for (text, reach) in [
            ("93.184.215.14", Reach::Public),
            ("2606:2800:21f::1", Reach::Public),
            ("10.1.2.3", Reach::Private),
            ("172.31.0.1", Reach::Private),
            ("172.32.0.1", Reach::Public),
            ("192.168.7.7", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("fd12::1", Reach::Private),
            ("127.0.0.1", Reach::Loopback),
            ("127.9.9.9", Reach::Loopback),
            ("0.0.0.0", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("::ffff:10.0.0.1", Reach::Private),
            ("64:ff9b::a9fe:a9fe", Reach::Never),
            ("2002:7f00:1::", Reach::Loopback),
            ("::7f00:1", Reach::Loopback),
            ("169.254.169.254", Reach::Never),
            ("::ffff:169.254.169.254", Reach::Never),
            ("fe80::1", Reach::Never),
            ("fd00:ec2::254", Reach::Never),
            ("100.100.100.200", Reach::Never),
            ("224.0.0.1", Reach::Never),
            ("255.255.255.255", Reach::Never),
            ("ff02::1", Reach::Never),
        ] {
            assert_eq!(Reach::of(text.parse().unwrap()), reach, "{text}");
        }
    }
}
