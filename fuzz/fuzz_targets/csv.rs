//! A file becomes the same contacts however it arrives; every row is accounted for; places are dense; no number comes twice.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use ringmaster::services::imports::read_csv;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, rest) = input;
    // Few inputs would guess a header.
    for file in [rest.to_vec(), [b"number,firstName,city\n", rest].concat()] {
        let whole = read_csv(&file, file.len());
        match (&whole, read_csv(&file, usize::from(piece))) {
            (Ok(whole), Ok(pieces)) => assert!(*whole == pieces),
            // Of several faults the one is told that shows first.
            (Err(_), Err(_)) => {}
            (whole, pieces) => panic!("{:?}, in pieces {:?}", whole.as_ref().err(), pieces.err()),
        }
        if let Ok(([total, accepted, duplicates, rejected], contacts)) = whole {
            assert_eq!(total, accepted + duplicates + rejected);
            assert!(contacts.iter().map(|contact| contact.seq).eq(0..accepted));
            let numbers: BTreeSet<_> = contacts
                .iter()
                .map(|contact| contact.number.to_u64())
                .collect();
            assert_eq!(numbers.len() as u64, accepted);
        }
    }
});
