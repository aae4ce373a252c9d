-- What people ask most, each as one statement for `mexc-trio sql` or any client. None needs a cast.
-- Each is a test that compares its answer with one computed from the raw texts, and so are the same
-- questions to pandas, polars, duckdb and numpy with exported files (tests/process/test_questions.py);
-- `python -m tools.questions` asks all of it of a day of a busy contract.

-- turnover (times the contract's size, in USDT)
SELECT sum(price * volume) FROM btc_deals;
-- turnover in USDT
SELECT sum(price * volume * contract_size) FROM btc_deals;
-- volume-weighted average price
SELECT sum(price * volume) / sum(volume) FROM btc_deals;
-- VWAP of each minute
SELECT toStartOfMinute(ts) AS minute, sum(price * volume) / sum(volume) AS vwap FROM btc_deals GROUP BY minute ORDER BY minute;
-- candles of five minutes
SELECT * FROM btc_candles(interval = 300);
-- candles of a minute made into hours
SELECT toStartOfHour(ts) AS hour, argMin(open, ts), max(high), min(low), argMax(close, ts), sum(volume) FROM btc_candles(interval = 60) GROUP BY hour ORDER BY hour;
-- share of the volume that was bought
SELECT sum(if(side = 'buy', volume, 0)) / sum(volume) FROM btc_deals;
-- net order flow of each minute
SELECT toStartOfMinute(ts) AS minute, sum(if(side = 'buy', volume, -volume)) AS flow FROM btc_deals GROUP BY minute ORDER BY minute;
-- the largest deals
SELECT volume, price, side FROM btc_deals ORDER BY volume DESC, ts LIMIT 5;
-- volume by price, in steps of 10
SELECT floor(price / 10) * 10 AS step, sum(volume) FROM btc_deals GROUP BY step ORDER BY step;
-- median time between deals, in milliseconds
SELECT quantileExact(0.5)(pause) FROM (SELECT ts, dateDiff('millisecond', lagInFrame(ts, 1, ts) OVER (ORDER BY ts), ts) AS pause FROM btc_deals);
-- average spread in basis points
SELECT avg(spread / mid) * 10000 FROM btc_depths;
-- the spread's quartiles in basis points
SELECT quantilesExact(0.25, 0.5, 0.75)(spread / mid * 10000) FROM btc_depths;
-- microprice
SELECT ts, (best_bid * best_ask_amount + best_ask * best_bid_amount) / (best_bid_amount + best_ask_amount) AS microprice FROM btc_depths ORDER BY ts;
-- imbalance of the whole book
SELECT ts, (arraySum(bid_amounts) - arraySum(ask_amounts)) / (arraySum(bid_amounts) + arraySum(ask_amounts)) AS imbalance FROM btc_depths ORDER BY ts;
-- bids within 0.001 % of the middle
SELECT ts, arraySum((price, amount) -> if(price >= mid * 0.99999, amount, 0), bid_prices, bid_amounts) AS near FROM btc_depths ORDER BY ts;
-- average price of buying 50,000 contracts at once
SELECT ts, arraySum((price, amount, upto) -> price * greatest(least(amount, 50000 - upto + amount), 0), ask_prices, ask_amounts, arrayCumSum(ask_amounts)) / 50000 AS average FROM btc_depths WHERE arraySum(ask_amounts) >= 50000 ORDER BY ts;
-- effective spread in basis points: deals beside the book before them
SELECT avg(abs(price - mid) / mid) * 20000 FROM (SELECT 1 AS one, ts, price FROM btc_deals) AS d ASOF JOIN (SELECT 1 AS one, ts, mid FROM btc_depths) AS b USING (one, ts);
-- realised variance of a minute's returns
SELECT sum(pow(log(close / before), 2)) FROM (SELECT close, lagInFrame(close, 1, close) OVER (ORDER BY ts) AS before FROM btc_candles(interval = 60));
-- correlation of two contracts' minutes
SELECT corr(log(btc.close / btc.open), log(eth.close / eth.open)) FROM btc_candles(interval = 60) AS btc JOIN eth_candles(interval = 60) AS eth USING ts;
-- premium of the last price over the index, in basis points
SELECT avg(last_price / index_price - 1) * 10000 FROM btc_tickers;
-- change of the open contracts
SELECT argMax(hold_volume, ts) - argMin(hold_volume, ts) FROM btc_tickers;
-- the last funding rate
SELECT argMax(funding_rate, ts) FROM btc_tickers;
