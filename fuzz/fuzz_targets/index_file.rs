//! Indexes as disks and other programs leave them: any octets at all. What is read
//! of them is written again and says the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popcore::maildrop::index::Contents;

fuzz_target!(|octets: &[u8]| {
    read(octets);
    // As records of a good index: a fuzzer does not find a checksum by itself.
    let mut forged = Contents::read(&[]).to_octets();
    let mut rest = octets;
    while let Some((&[kind, length], tail)) = rest.split_first_chunk::<2>() {
        let (payload, tail) = tail.split_at(usize::from(length).min(tail.len()));
        let start = forged.len();
        let size = u16::try_from(payload.len())
            .expect("below 256")
            .to_le_bytes();
        forged.extend_from_slice(&[0xa7, kind % 6, size[0], size[1]]);
        forged.extend_from_slice(payload);
        let checksum = crc32fast::hash(&forged[start..]).to_le_bytes();
        forged.extend_from_slice(&checksum);
        rest = tail;
    }
    read(&forged);
});

fn read(octets: &[u8]) {
    let contents = Contents::read(octets);
    let again = contents.to_octets();
    let second = Contents::read(&again);
    let texts = |contents: &Contents<'_>| -> Vec<_> {
        let text = |m: popcore::maildrop::index::Indexed<'_>| {
            let uidl = m.uidl();
            assert!((1..=70).contains(&uidl.len()) && uidl.iter().all(u8::is_ascii_graphic));
            (
                m.name().to_owned(),
                uidl,
                m.octets(),
                m.stored(),
                m.folder(),
            )
        };
        contents.messages().map(text).collect()
    };
    assert_eq!(texts(&contents), texts(&second));
    assert_eq!(contents.len(), second.len());
}
