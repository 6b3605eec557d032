//! Pages of lists: `{items, nextCursor}`, with `?limit=` and `&cursor=`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::{ApiResult, FieldFault};
use crate::routes::extract::query_error;

/// Items of a page, where the request does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Most items of a page.
pub const MAX_LIMIT: u32 = 500;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Send it as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// The query parameters of a list without filters.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items of the page, 1 to 500; 50 if not given.
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
}

/// A page that was asked for: how many items, and behind which place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest<C> {
    limit: u32,
    /// The place behind which the page begins; none for the first page.
    pub after: Option<C>,
}

impl PageQuery {
    /// Understands the parameters; `C` is what the list is ordered by.
    ///
    /// # Errors
    /// 400 `invalid_query`.
    pub fn request<C: FromStr>(&self) -> ApiResult<PageRequest<C>> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let reason = format!("must be 1 to {MAX_LIMIT}");
            return Err(query_error(FieldFault::at("limit", reason)));
        }
        let after = self.cursor.as_deref().map(str::parse).transpose();
        let after =
            after.map_err(|_| query_error(FieldFault::at("cursor", "is none that we gave out")))?;
        Ok(PageRequest { limit, after })
    }
}

impl<C> PageRequest<C> {
    /// How many items to read: one more than the page has, to know whether there is a next one.
    #[must_use]
    pub fn fetch(&self) -> u32 {
        self.limit + 1
    }

    /// The page, of what was read.
    pub fn page<S, T>(
        &self,
        mut read: Vec<S>,
        place: impl Fn(&S) -> String,
        show: impl FnMut(S) -> T,
    ) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = read.len() > limit;
        read.truncate(limit);
        let next_cursor = read.last().filter(|_| has_more).map(place);
        let items = read.into_iter().map(show).collect();
        Page { items, next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(limit: Option<u32>, cursor: Option<&str>) -> PageQuery {
        let cursor = cursor.map(str::to_owned);
        PageQuery { limit, cursor }
    }

    #[test]
    fn there_is_a_next_page_only_when_more_was_read() {
        let request = query(Some(2), Some("7")).request::<u64>().unwrap();
        assert_eq!((request.after, request.fetch()), (Some(7), 3));
        let page = request.page(vec![1, 2, 3], ToString::to_string, |item| item * 10);
        assert_eq!(
            (page.items, page.next_cursor.as_deref()),
            (vec![10, 20], Some("2"))
        );
        let page = request.page(vec![1, 2], ToString::to_string, |item| item);
        assert_eq!(page.next_cursor, None);
    }

    #[test]
    fn limits_and_cursors_that_cannot_be_are_refused() {
        for wrong in [
            query(Some(0), None),
            query(Some(501), None),
            query(None, Some("x")),
        ] {
            let error = wrong.request::<u64>().unwrap_err();
            assert_eq!(error.code(), "invalid_query");
        }
    }
}
