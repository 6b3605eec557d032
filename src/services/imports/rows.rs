//! From bytes to contacts: finds the rows of a CSV file that arrives in pieces, and sorts rows into contacts, duplicates
//! and rejected ones. No IO, and memory for one piece, one row and the set of numbers only.

use std::collections::BTreeSet;

use csv::{ReaderBuilder, StringRecord};
use roaring::RoaringTreemap;

use crate::domain::contact::{Columns, Contact, ContactDraft, HeaderError, RowError};
use crate::domain::list::RejectedRow;
use crate::domain::phone::CountryCode;

/// Most rows of a list.
const MAX_ROWS: u64 = 5_000_000;
/// Most rejected rows that are kept with a list.
const MAX_REJECTS: usize = 10_000;
/// Longest row, line breaks in quotes included.
const MAX_ROW_BYTES: usize = 1024 * 1024;
/// Most names of fields that the contacts of a JSON list may have together; as many as a file may have columns.
const MAX_NAMES: usize = 100;
/// What a file that says so in its first line may have instead of commas: spreadsheets write it in many countries.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// Why a file as a whole cannot be a list. The texts hold nothing of the file but column names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// It is no CSV file in UTF-8.
    #[error("{reason}")]
    NotCsv {
        /// Where that shows.
        line: Option<u64>,
        /// How it shows.
        reason: &'static str,
    },
    /// Its header does not say what the columns are.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It has nothing, or a header only.
    #[error("there are no contacts in it")]
    NoRows,
    /// It has more rows than a list may have.
    #[error("a list may have {MAX_ROWS} rows at most")]
    TooManyRows,
}

/// What became of the rows.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) total: u64,
    pub(super) accepted: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
    /// The first [`MAX_REJECTS`] of the rejected.
    pub(super) rejects: Vec<RejectedRow>,
    /// The names that templates may use.
    pub(super) names: Vec<String>,
}

/// Sorts rows, and gives the accepted ones their places.
#[derive(Debug, Default)]
pub(super) struct Intake {
    seen: RoaringTreemap,
    pub(super) report: Report,
    /// Accepted and not yet written.
    pub(super) batch: Vec<Contact>,
}

impl Intake {
    fn take(&mut self, line: u64, row: Result<ContactDraft, RowError>) -> Result<(), FileFault> {
        let report = &mut self.report;
        if report.total == MAX_ROWS {
            return Err(FileFault::TooManyRows);
        }
        report.total += 1;
        match row {
            Ok(draft) if self.seen.insert(draft.number.to_u64()) => {
                self.batch.push(draft.at(report.accepted));
                report.accepted += 1;
            }
            Ok(_) => report.duplicates += 1,
            Err(error) => {
                report.rejected += 1;
                if report.rejects.len() < MAX_REJECTS {
                    report.rejects.push(RejectedRow::new(line, error));
                }
            }
        }
        Ok(())
    }
}

/// The contacts of a JSON list; they have places instead of lines, and together the names that templates may use.
#[derive(Debug, Default)]
pub(super) struct JsonRows {
    place: u64,
    names: BTreeSet<String>,
}

impl JsonRows {
    /// Takes the next contact.
    ///
    /// # Errors
    /// When the list cannot be one any more.
    pub(super) fn take(
        &mut self,
        row: Result<ContactDraft, RowError>,
        intake: &mut Intake,
    ) -> Result<(), FileFault> {
        self.place += 1;
        if let Ok(draft) = &row {
            for name in draft.names() {
                if !self.names.contains(name) {
                    self.names.insert(name.to_owned());
                }
            }
        }
        if self.names.len() > MAX_NAMES {
            return Err(HeaderError::TooMany(self.names.len()).into());
        }
        intake.take(self.place, row)
    }

    /// All contacts were taken.
    pub(super) fn finish(self, intake: &mut Intake) {
        intake.report.names = self.names.into_iter().collect();
    }
}

/// Reads a CSV file that arrives in pieces.
#[derive(Debug)]
pub(super) struct CsvRows {
    default_country: Option<CountryCode>,
    /// Bytes that are not yet rows.
    pending: Vec<u8>,
    /// How many of them were looked at.
    scanned: usize,
    /// How many of them are whole rows.
    whole: usize,
    state: State,
    /// The line in which `pending` begins.
    line: u64,
    is_checked: bool,
    delimiter: Option<u8>,
    columns: Option<Columns>,
}

/// Where in a row the scanner is; a line break ends the row everywhere but in quotes. Quotes count only where a cell
/// begins with one, exactly as for the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    CellStart,
    InCell,
    InQuotes,
    QuoteInQuotes,
}

impl State {
    fn next(self, byte: u8, delimiter: u8) -> Self {
        match (self, byte) {
            (Self::InQuotes, b'"') => Self::QuoteInQuotes,
            (Self::InQuotes, _) | (Self::CellStart | Self::QuoteInQuotes, b'"') => Self::InQuotes,
            (_, b'\n' | b'\r') => Self::CellStart,
            (_, byte) if byte == delimiter => Self::CellStart,
            _ => Self::InCell,
        }
    }
}

impl CsvRows {
    pub(super) fn new(default_country: Option<CountryCode>) -> Self {
        Self {
            default_country,
            pending: Vec::new(),
            scanned: 0,
            whole: 0,
            state: State::CellStart,
            line: 1,
            is_checked: false,
            delimiter: None,
            columns: None,
        }
    }

    /// Takes the next piece of the file.
    ///
    /// # Errors
    /// When the file cannot be a list.
    pub(super) fn feed(&mut self, piece: &[u8], intake: &mut Intake) -> Result<(), FileFault> {
        if piece.contains(&0) {
            return Err(not_csv(None, "it is a binary file or not in UTF-8"));
        }
        self.pending.extend_from_slice(piece);
        if self.pending.len() >= 4 {
            self.check_beginning()?;
        }
        self.read_rows(intake)?;
        if self.pending.len() > MAX_ROW_BYTES {
            let reason = "the row that begins here is longer than 1 MiB: a quote may be missing";
            return Err(not_csv(Some(self.line), reason));
        }
        Ok(())
    }

    /// The file is complete.
    ///
    /// # Errors
    /// When the file cannot be a list.
    pub(super) fn finish(mut self, intake: &mut Intake) -> Result<(), FileFault> {
        self.check_beginning()?;
        if !self.pending.ends_with(b"\n") {
            self.pending.push(b'\n');
        }
        self.read_rows(intake)?;
        if self.state == State::InQuotes {
            let reason = "a cell of the row that begins here has no closing quote";
            return Err(not_csv(Some(self.line), reason));
        }
        intake.report.names = self
            .columns
            .map(|columns| columns.names())
            .unwrap_or_default();
        Ok(())
    }

    /// Knows what people upload by mistake by its first bytes, and takes off the byte order mark.
    fn check_beginning(&mut self) -> Result<(), FileFault> {
        if self.is_checked {
            return Ok(());
        }
        self.is_checked = true;
        if self.pending.starts_with(b"PK\x03\x04") {
            let reason = "it is a spreadsheet (XLSX) or another ZIP file: save it as CSV in UTF-8";
            return Err(not_csv(None, reason));
        }
        if self.pending.starts_with(b"\xef\xbb\xbf") {
            self.pending.drain(..3);
        }
        Ok(())
    }

    fn read_rows(&mut self, intake: &mut Intake) -> Result<(), FileFault> {
        let Some(delimiter) = self.find_delimiter() else {
            return Ok(());
        };
        for (place, byte) in self.pending.iter().enumerate().skip(self.scanned) {
            let next = self.state.next(*byte, delimiter);
            if next == State::CellStart && *byte != delimiter {
                self.whole = place + 1;
            }
            self.state = next;
        }
        self.scanned = self.pending.len();
        self.parse_whole(delimiter, intake)?;
        self.pending.drain(..self.whole);
        self.scanned -= self.whole;
        self.whole = 0;
        Ok(())
    }

    /// Known once the first line that is not blank has arrived.
    fn find_delimiter(&mut self) -> Option<u8> {
        if self.delimiter.is_none() && self.is_checked {
            let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
            let begin = self.pending.iter().position(|byte| !is_break(byte))?;
            let line = &self.pending[begin..];
            let line = &line[..line.iter().position(is_break)?];
            let used = DELIMITERS.into_iter().find(|byte| line.contains(byte));
            self.delimiter = Some(used.unwrap_or(b','));
        }
        self.delimiter
    }

    fn parse_whole(&mut self, delimiter: u8, intake: &mut Intake) -> Result<(), FileFault> {
        let whole = &self.pending[..self.whole];
        if let Err(error) = std::str::from_utf8(whole) {
            let line = self.line + line_breaks(&whole[..error.valid_up_to()]);
            return Err(not_csv(
                Some(line),
                "it is not in UTF-8: save it as CSV in UTF-8",
            ));
        }
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_reader(whole);
        let mut row = StringRecord::new();
        loop {
            let line = self.line + row_line(whole, reader.position());
            match reader.read_record(&mut row) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return Err(not_csv(Some(line), "it is not a CSV file")),
            }
            let cells: Vec<&str> = row.iter().collect();
            match &self.columns {
                None => self.columns = Some(Columns::from_header(&cells)?),
                // Spreadsheets leave rows of empty cells behind.
                Some(_) if cells.iter().all(|cell| cell.trim().is_empty()) => {}
                Some(columns) => {
                    intake.take(line, columns.contact(&cells, self.default_country))?;
                }
            }
        }
        self.line += line_breaks(whole);
        Ok(())
    }
}

/// How many lines behind the first the row begins that the parser reads next: it passes over blank lines itself.
fn row_line(text: &[u8], position: &csv::Position) -> u64 {
    let from = usize::try_from(position.byte()).unwrap_or(text.len());
    let blank = text[from.min(text.len())..]
        .iter()
        .take_while(|byte| matches!(byte, b'\n' | b'\r'));
    let skipped = blank.fold(0, |lines, byte| lines + u64::from(*byte == b'\n'));
    position.line() - 1 + skipped
}

fn line_breaks(text: &[u8]) -> u64 {
    text.iter()
        .fold(0, |count, byte| count + u64::from(*byte == b'\n'))
}

fn not_csv(line: Option<u64>, reason: &'static str) -> FileFault {
    FileFault::NotCsv { line, reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(file: &[u8], piece: usize) -> Result<Intake, FileFault> {
        let mut intake = Intake::default();
        let mut rows = CsvRows::new(None);
        for piece in file.chunks(piece) {
            rows.feed(piece, &mut intake)?;
        }
        rows.finish(&mut intake)?;
        Ok(intake)
    }

    fn lines(intake: &Intake) -> Vec<u64> {
        intake.report.rejects.iter().map(|row| row.line).collect()
    }

    const MIXED: &str = "\u{feff}\"Phone\",first_name,note\r\n\
        +14155550101,Ann,\"two\r\nlines, and a \"\"quote\"\"\"\r\n\
        \r\n\
        oops,Bob,5\" pipe\r\n\
        +14155550101,Ann again,\r\n\
        +14155550102,Cid\r\n\
        ,,\r\n\
        +14155550103,Dee,x";

    #[test]
    fn rows_are_sorted_and_lines_are_those_of_the_file_however_it_is_cut() {
        for piece in 1..MIXED.len() {
            let intake = read(MIXED.as_bytes(), piece).unwrap();
            let report = &intake.report;
            assert_eq!(
                (
                    report.total,
                    report.accepted,
                    report.duplicates,
                    report.rejected
                ),
                (5, 2, 1, 2)
            );
            assert_eq!(lines(&intake), [5, 7], "pieces of {piece}");
            assert_eq!(report.names, ["firstName", "note"]);
            let seqs: Vec<_> = intake.batch.iter().map(|contact| contact.seq).collect();
            assert_eq!(seqs, [0, 1]);
            assert_eq!(
                intake.batch[0].value("note"),
                Some("two\r\nlines, and a \"quote\"")
            );
        }
    }

    #[test]
    fn other_delimiters_are_known_by_the_first_line() {
        for delimiter in [",", ";", "\t"] {
            let file = "number,name\n+14155550101,Ann\n".replace(',', delimiter);
            let intake = read(file.as_bytes(), 5).unwrap();
            assert_eq!(intake.batch[0].first_name.as_deref(), Some("Ann"));
        }
    }

    #[test]
    fn what_is_no_csv_says_so() {
        let fault = |file: &[u8]| read(file, 3).unwrap_err();
        assert!(fault(b"PK\x03\x04rest").to_string().contains("XLSX"));
        assert!(matches!(
            fault(b"number\n+1415\0"),
            FileFault::NotCsv { .. }
        ));
        assert_eq!(
            fault(b"number,name\n+14155550101,Ann\n+14155550102,Jos\xe9\n"),
            not_csv(Some(3), "it is not in UTF-8: save it as CSV in UTF-8")
        );
        assert!(matches!(
            fault(b"number,name\n+14155550101,\"Ann\n+14155550102,Bob\n"),
            FileFault::NotCsv { line: Some(2), .. }
        ));
        assert_eq!(fault(b"name\nAnn\n"), HeaderError::NoNumber.into());
        for file in ["", "\n\n", "\u{feff}"] {
            assert_eq!(read(file.as_bytes(), 1).unwrap().report.total, 0);
        }
    }

    #[test]
    fn a_row_without_end_is_refused_before_it_fills_the_memory() {
        let mut rows = CsvRows::new(None);
        let mut intake = Intake::default();
        rows.feed(b"number,name\n+14155550101,\"", &mut intake)
            .unwrap();
        let piece = [b'x'; 16 * 1024];
        let fault = (0..100).find_map(|_| rows.feed(&piece, &mut intake).err());
        assert!(matches!(
            fault,
            Some(FileFault::NotCsv { line: Some(2), .. })
        ));
    }

    proptest! {
        #[test]
        fn the_scanner_and_the_parser_agree_on_rows(
            cells in proptest::collection::vec("[ab\" ,\n\r]{0,6}", 1..12),
            piece in 1..9_usize,
        ) {
            let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
            writer.write_record(["number", "note"]).unwrap();
            for cell in &cells {
                writer.write_record(["bad", cell.as_str()]).unwrap();
            }
            let file = writer.into_inner().unwrap();
            let intake = read(&file, piece).unwrap();
            prop_assert_eq!(intake.report.total, cells.len() as u64);
        }

        /// However the bytes arrive, the same becomes of them, and no row is lost.
        #[test]
        fn pieces_change_nothing(
            file in proptest::collection::vec(any::<u8>(), 0..400), text in "number,name\n([+0-9a-z,;\"\n\r]{0,200})", piece in 1..50_usize,
        ) {
            for file in [file, text.into_bytes()] {
                match (read(&file, piece), read(&file, file.len().max(1))) {
                    (Ok(pieces), Ok(whole)) => {
                        let (pieces, whole) = (pieces.report, whole.report);
                        prop_assert_eq!(whole.total, whole.accepted + whole.duplicates + whole.rejected);
                        prop_assert_eq!((pieces.total, pieces.accepted, pieces.rejected), (whole.total, whole.accepted, whole.rejected));
                    }
                    // Of several faults the one is told that shows first.
                    (Err(_), Err(_)) => {}
                    (pieces, whole) => prop_assert!(false, "{:?} in pieces, {:?} as a whole", pieces.err(), whole.err()),
                }
            }
        }
    }
}
