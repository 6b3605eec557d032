//! Calling windows: on which days and between which hours of a clock people may be called.
//!
//! The clock is the campaign's or the contact's own. Where it cannot be known, nobody is called ([`WindowState::NoZone`]):
//! the rules behind windows are laws. For the same reason, clock changes are read strictly. Whenever a window is open, the
//! clock on the wall shows a time inside it: where clocks go back, a start inside the repeated hour means its second
//! pass and an end its first; where they go forward, a time that is skipped means the moment of the jump.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, Duration, NaiveDate, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

const MINUTES_PER_DAY: u16 = 24 * 60;
/// How many days ahead an opening is looked for: a week, twice, because a clock change may swallow one opening.
const DAYS_AHEAD: i64 = 14;

/// Days and hours in which calls may start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The days on which the window opens, at least one.
    pub days: Vec<Day>,
    /// When it opens, `HH:MM`.
    #[schema(value_type = String, example = "09:00")]
    pub start: TimeOfDay,
    /// When it closes, `HH:MM`; a time before the start means on the following day, `24:00` is the end of the day. A
    /// call that started in time may go on.
    #[schema(value_type = String, example = "18:00")]
    pub end: TimeOfDay,
    /// Whose clock: `contact` or an IANA name.
    #[schema(value_type = String, example = "Asia/Kolkata")]
    pub time_zone: WindowZone,
}

/// What a window says about a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowState {
    /// Calls may start.
    Open {
        /// The first moment at which this opening is over.
        closes_at: DateTime<Utc>,
    },
    /// Calls may not start.
    Closed {
        /// When to look again: the first moment at which it is open.
        opens_at: DateTime<Utc>,
    },
    /// The window follows the contact's clock, and the contact's time zone is not known.
    NoZone,
}

impl Window {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// All faults at once, each as field path (relative to the window) and reason.
    pub fn validate(&self) -> Result<(), Vec<(String, String)>> {
        let mut faults = Vec::new();
        let mut fault = |path: String, reason: &str| faults.push((path, reason.to_owned()));
        if self.days.is_empty() {
            fault("days".to_owned(), "needs at least one day");
        }
        for (index, day) in self.days.iter().enumerate() {
            if self.days[..index].contains(day) {
                fault(format!("days[{index}]"), "is listed twice");
            }
        }
        if self.start.0 == MINUTES_PER_DAY {
            fault("start".to_owned(), "must be before 24:00");
        }
        if self.start == self.end {
            fault(
                "end".to_owned(),
                "must differ from start; a whole day is 00:00 to 24:00",
            );
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults)
        }
    }

    /// Whether calls may start at `now`, and until or from when.
    pub fn state(&self, contact_zone: Option<Tz>, now: DateTime<Utc>) -> WindowState {
        let zone = match (self.time_zone, contact_zone) {
            (WindowZone::Fixed(zone), _) | (WindowZone::Contact, Some(zone)) => zone,
            (WindowZone::Contact, None) => return WindowState::NoZone,
        };
        // Yesterday's opening may reach past midnight into today.
        let today = now.with_timezone(&zone).date_naive();
        let openings = (-1..=DAYS_AHEAD)
            .filter_map(|days| today.checked_add_signed(Duration::days(days)))
            .filter_map(|date| self.opening(zone, date));
        for (opens_at, closes_at) in openings {
            if now < opens_at {
                return WindowState::Closed { opens_at };
            }
            if now < closes_at {
                return WindowState::Open { closes_at };
            }
        }
        // A window without days, which validation refuses, never opens.
        WindowState::Closed {
            opens_at: now + Duration::days(DAYS_AHEAD),
        }
    }

    /// The opening that begins on a date, as a half-open span of time, if there is one.
    fn opening(&self, zone: Tz, date: NaiveDate) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        if !self.days.iter().any(|day| day.is_on(date)) {
            return None;
        }
        let last_date = if self.start < self.end {
            date
        } else {
            date.checked_add_days(Days::new(1))?
        };
        let opens = instants(zone, self.start.on(date)?)?;
        let closes = instants(zone, self.end.on(last_date)?)?;
        let opens_at = opens.last;
        let closes_at = if closes.first > opens_at {
            closes.first
        } else {
            closes.last
        };
        (opens_at < closes_at).then_some((opens_at, closes_at))
    }
}

/// The moments at which a clock on the wall shows a time: one, or two where clocks go back.
struct Instants {
    first: DateTime<Utc>,
    last: DateTime<Utc>,
}

/// The moments of a local time; for one that clocks jump over, the moment of the jump.
fn instants(zone: Tz, local: NaiveDateTime) -> Option<Instants> {
    // The longest jump on record left out a whole day (Samoa, 2011). Jumps begin and end on whole minutes.
    (0..=i64::from(MINUTES_PER_DAY)).find_map(|minutes| {
        let local = local.checked_add_signed(Duration::minutes(minutes))?;
        let mapped = zone.from_local_datetime(&local);
        let first = mapped.earliest()?.with_timezone(&Utc);
        let last = mapped.latest()?.with_timezone(&Utc);
        Some(Instants { first, last })
    })
}

/// A day of the week: `mon` to `sun`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the days of the week say what they are")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// The whole week.
    pub const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    fn is_on(self, date: NaiveDate) -> bool {
        self as u32 == date.weekday().num_days_from_monday()
    }
}

/// A time on the clock, in whole minutes: `00:00` to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

/// The text is not a time of the form `HH:MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be a time of the form HH:MM, from 00:00 to 24:00")]
pub struct TimeOfDayError;

impl TimeOfDay {
    /// This time on a date; `24:00` is the next date's midnight.
    fn on(self, date: NaiveDate) -> Option<NaiveDateTime> {
        date.and_hms_opt(0, 0, 0)?
            .checked_add_signed(Duration::minutes(i64::from(self.0)))
    }
}

impl FromStr for TimeOfDay {
    type Err = TimeOfDayError;

    fn from_str(text: &str) -> Result<Self, TimeOfDayError> {
        let (hours, minutes) = text.split_once(':').ok_or(TimeOfDayError)?;
        let two_digits = |part: &str| match part.as_bytes() {
            [tens @ b'0'..=b'9', units @ b'0'..=b'9'] => {
                Ok(u16::from(tens - b'0') * 10 + u16::from(units - b'0'))
            }
            _ => Err(TimeOfDayError),
        };
        let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
        let time = hours * 60 + minutes;
        if minutes < 60 && time <= MINUTES_PER_DAY {
            Ok(Self(time))
        } else {
            Err(TimeOfDayError)
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = TimeOfDayError;

    fn try_from(text: String) -> Result<Self, TimeOfDayError> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

/// Whose clock a window follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WindowZone {
    /// Each contact's own.
    Contact,
    /// That of one time zone.
    Fixed(Tz),
}

/// The text is neither `contact` nor a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be \"contact\" or an IANA time zone, for example Asia/Kolkata")]
pub struct WindowZoneError;

const CONTACT: &str = "contact";

impl TryFrom<String> for WindowZone {
    type Error = WindowZoneError;

    fn try_from(text: String) -> Result<Self, WindowZoneError> {
        match text.as_str() {
            CONTACT => Ok(Self::Contact),
            name => name.parse().map(Self::Fixed).map_err(|_| WindowZoneError),
        }
    }
}

impl From<WindowZone> for String {
    fn from(zone: WindowZone) -> Self {
        match zone {
            WindowZone::Contact => CONTACT.to_owned(),
            WindowZone::Fixed(zone) => zone.name().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;

    /// Zones with every kind of clock: none, northern, southern, half-hour change, midnight change, far offsets.
    const ZONES: [Tz; 10] = [
        Tz::UTC,
        Tz::Asia__Kolkata,
        Tz::America__New_York,
        Tz::Europe__Berlin,
        Tz::Australia__Lord_Howe,
        Tz::America__Santiago,
        Tz::Africa__Cairo,
        Tz::Asia__Beirut,
        Tz::Pacific__Apia,
        Tz::America__Havana,
    ];

    fn window(days: &[Day], start: &str, end: &str, zone: Tz) -> Window {
        Window {
            days: days.to_vec(),
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
            time_zone: WindowZone::Fixed(zone),
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check_open(window: &Window, now: &str, closes_at: &str) {
        assert_eq!(
            window.state(None, at(now)),
            WindowState::Open {
                closes_at: at(closes_at)
            },
            "{now}"
        );
    }

    #[track_caller]
    fn check_closed(window: &Window, now: &str, opens_at: &str) {
        assert_eq!(
            window.state(None, at(now)),
            WindowState::Closed {
                opens_at: at(opens_at)
            },
            "{now}"
        );
    }

    #[test]
    fn office_hours_in_india() {
        let week = window(&Day::ALL[..5], "09:00", "18:00", Tz::Asia__Kolkata);
        check_closed(&week, "2026-11-23T03:29:59.999Z", "2026-11-23T03:30:00Z");
        check_open(&week, "2026-11-23T03:30:00Z", "2026-11-23T12:30:00Z");
        check_open(&week, "2026-11-23T12:29:59.999Z", "2026-11-23T12:30:00Z");
        check_closed(&week, "2026-11-23T12:30:00Z", "2026-11-24T03:30:00Z");
        // From Friday evening to Monday morning.
        check_closed(&week, "2026-11-27T12:30:00Z", "2026-11-30T03:30:00Z");
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_it_opens() {
        let night = window(&[Day::Fri], "22:00", "02:00", Tz::UTC);
        check_closed(&night, "2026-11-27T01:00:00Z", "2026-11-27T22:00:00Z");
        check_open(&night, "2026-11-27T23:00:00Z", "2026-11-28T02:00:00Z");
        check_open(&night, "2026-11-28T01:59:59Z", "2026-11-28T02:00:00Z");
        check_closed(&night, "2026-11-28T02:00:00Z", "2026-12-04T22:00:00Z");
    }

    #[test]
    fn whole_days_touch() {
        let always = window(&Day::ALL, "00:00", "24:00", Tz::UTC);
        check_open(&always, "2026-11-27T23:59:59.999Z", "2026-11-28T00:00:00Z");
        check_open(&always, "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z");
        let evening = window(&Day::ALL, "18:00", "00:00", Tz::UTC);
        check_open(&evening, "2026-11-27T18:00:00Z", "2026-11-28T00:00:00Z");
    }

    #[test]
    fn clocks_go_forward() {
        // New York, 2026-03-08: 02:00 EST is followed by 03:00 EDT at 07:00 UTC.
        let start_skipped = window(&[Day::Sun], "02:30", "05:00", Tz::America__New_York);
        check_closed(
            &start_skipped,
            "2026-03-08T06:59:59.999Z",
            "2026-03-08T07:00:00Z",
        );
        check_open(
            &start_skipped,
            "2026-03-08T07:00:00Z",
            "2026-03-08T09:00:00Z",
        );
        let end_skipped = window(&[Day::Sun], "01:00", "02:30", Tz::America__New_York);
        check_open(&end_skipped, "2026-03-08T06:00:00Z", "2026-03-08T07:00:00Z");
        let both_skipped = window(&[Day::Sun], "02:10", "02:50", Tz::America__New_York);
        check_closed(
            &both_skipped,
            "2026-03-08T07:00:00Z",
            "2026-03-15T06:10:00Z",
        );
    }

    #[test]
    fn clocks_go_back() {
        // New York, 2026-11-01: 02:00 EDT is followed by 01:00 EST at 06:00 UTC.
        let start_repeated = window(&[Day::Sun], "01:30", "05:00", Tz::America__New_York);
        check_closed(
            &start_repeated,
            "2026-11-01T05:45:00Z",
            "2026-11-01T06:30:00Z",
        );
        let end_repeated = window(&[Day::Sun], "00:00", "01:30", Tz::America__New_York);
        check_open(
            &end_repeated,
            "2026-11-01T04:00:00Z",
            "2026-11-01T05:30:00Z",
        );
        check_closed(
            &end_repeated,
            "2026-11-01T06:00:00Z",
            "2026-11-08T05:00:00Z",
        );
        let both_repeated = window(&[Day::Sun], "01:15", "01:45", Tz::America__New_York);
        check_open(
            &both_repeated,
            "2026-11-01T06:15:00Z",
            "2026-11-01T06:45:00Z",
        );
        let around = window(&[Day::Sun], "00:00", "04:00", Tz::America__New_York);
        check_open(&around, "2026-11-01T05:30:00Z", "2026-11-01T09:00:00Z");
    }

    #[test]
    fn the_contacts_clock_decides_and_its_absence_closes() {
        let mut own = window(&Day::ALL, "09:00", "18:00", Tz::UTC);
        own.time_zone = WindowZone::Contact;
        let now = at("2026-11-23T20:00:00Z");
        assert_eq!(own.state(None, now), WindowState::NoZone);
        assert_eq!(
            own.state(Some(Tz::America__New_York), now),
            WindowState::Open {
                closes_at: at("2026-11-23T23:00:00Z")
            }
        );
        assert_eq!(
            own.state(Some(Tz::Asia__Kolkata), now),
            WindowState::Closed {
                opens_at: at("2026-11-24T03:30:00Z")
            }
        );
    }

    #[test]
    fn faults_are_named() {
        let paths = |window: &Window| {
            window
                .validate()
                .map_err(|faults| faults.into_iter().map(|(path, _)| path).collect::<Vec<_>>())
        };
        assert_eq!(paths(&window(&Day::ALL, "09:00", "18:00", Tz::UTC)), Ok(()));
        assert_eq!(paths(&window(&Day::ALL, "22:00", "02:00", Tz::UTC)), Ok(()));
        assert_eq!(
            paths(&window(&[], "09:00", "09:00", Tz::UTC)),
            Err(vec!["days".to_owned(), "end".to_owned()])
        );
        assert_eq!(
            paths(&window(&[Day::Mon, Day::Mon], "24:00", "09:00", Tz::UTC)),
            Err(vec!["days[1]".to_owned(), "start".to_owned()])
        );
    }

    #[test]
    fn a_window_without_days_stays_closed() {
        let never = window(&[], "09:00", "18:00", Tz::UTC);
        assert!(matches!(
            never.state(None, at("2026-11-23T10:00:00Z")),
            WindowState::Closed { .. }
        ));
    }

    #[test]
    fn json_form() {
        let json =
            r#"{"days":["mon","sun"],"start":"09:00","end":"24:00","timeZone":"Asia/Kolkata"}"#;
        let window: Window = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&window).unwrap(), json);
        let contact: WindowZone = serde_json::from_str(r#""contact""#).unwrap();
        assert_eq!(contact, WindowZone::Contact);
        for bad in [
            json.replace("09:00", "9:00"),
            json.replace("09:00", "09:60"),
            json.replace("09:00", "24:01"),
            json.replace("09:00", "+9:00"),
            json.replace("mon", "monday"),
            json.replace("Asia/Kolkata", "Asia/Nowhere"),
            json.replace("\"end\"", "\"stop\""),
        ] {
            assert!(serde_json::from_str::<Window>(&bad).is_err(), "{bad}");
        }
    }

    fn any_window() -> impl Strategy<Value = Window> {
        (
            subsequence(Day::ALL.to_vec(), 1..=7),
            0..MINUTES_PER_DAY,
            0..=MINUTES_PER_DAY,
            select(&ZONES[..]),
        )
            .prop_filter("start and end differ", |(_, start, end, _)| start != end)
            .prop_map(|(days, start, end, zone)| Window {
                days,
                start: TimeOfDay(start),
                end: TimeOfDay(end),
                time_zone: WindowZone::Fixed(zone),
            })
    }

    /// Moments of 2000 to 2040, half of them within three hours of a clock change of New York or Berlin in 2026.
    fn any_moment() -> impl Strategy<Value = DateTime<Utc>> {
        let anywhere = 946_684_800_000_i64..2_208_988_800_000;
        let changes = [
            "2026-03-08T07:00:00Z",
            "2026-11-01T06:00:00Z",
            "2026-03-29T01:00:00Z",
            "2026-10-25T01:00:00Z",
        ];
        let near = (select(changes.to_vec()), -10_800_000..10_800_000_i64)
            .prop_map(|(change, offset)| at(change).timestamp_millis() + offset);
        prop_oneof![anywhere, near]
            .prop_map(|millis| DateTime::from_timestamp_millis(millis).unwrap())
    }

    proptest! {
        #[test]
        fn the_promised_moments_are_exact(window in any_window(), now in any_moment()) {
            let millisecond = Duration::milliseconds(1);
            match window.state(None, now) {
                WindowState::Open { closes_at } => {
                    prop_assert!(now < closes_at);
                    let before = window.state(None, closes_at - millisecond);
                    prop_assert_eq!(before, WindowState::Open { closes_at });
                    prop_assert_ne!(window.state(None, closes_at), WindowState::Open { closes_at });
                }
                WindowState::Closed { opens_at } => {
                    prop_assert!(now < opens_at);
                    let is_open = matches!(window.state(None, opens_at), WindowState::Open { .. });
                    prop_assert!(is_open);
                    prop_assert_eq!(window.state(None, opens_at - millisecond), WindowState::Closed { opens_at });
                }
                WindowState::NoZone => prop_assert!(false, "the zone is fixed"),
            }
        }

        #[test]
        fn while_open_the_wall_clock_is_inside(window in any_window(), now in any_moment()) {
            let WindowZone::Fixed(zone) = window.time_zone else { unreachable!() };
            if let WindowState::Open { .. } = window.state(None, now) {
                let local = now.with_timezone(&zone).naive_local();
                let inside = [local.date().pred_opt().unwrap(), local.date()].into_iter().any(|date| {
                    let last = if window.start < window.end { date } else { date.succ_opt().unwrap() };
                    window.days.iter().any(|day| day.is_on(date))
                        && window.start.on(date).unwrap() <= local
                        && local < window.end.on(last).unwrap()
                });
                prop_assert!(inside, "{} {:?}", local, window);
            }
        }

        #[test]
        fn any_text_is_a_time_or_refused(text in any::<String>()) {
            if let Ok(time) = text.parse::<TimeOfDay>() {
                prop_assert_eq!(time.to_string(), text);
            }
        }
    }
}
