-- What is older than 30 days goes to the cold volume; a line for each table. A TTL that deletes would
-- be told in `gaps` as rows that the table lost: take DROP PARTITION for whole months, with the
-- recorder stopped, and expect the same line there.
ALTER TABLE mexc_data.btc ON CLUSTER main MODIFY TTL toDateTime(ts) + INTERVAL 30 DAY TO VOLUME 'cold';
ALTER TABLE mexc_data.eth ON CLUSTER main MODIFY TTL toDateTime(ts) + INTERVAL 30 DAY TO VOLUME 'cold';
