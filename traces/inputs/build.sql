PRAGMA page_size=32768; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, city TEXT, credit REAL);
CREATE TABLE sale(id INTEGER PRIMARY KEY, customer INTEGER, amount REAL, note TEXT);
BEGIN;
INSERT INTO customer
  SELECT value, printf('customer %08d', value * 2654435761 % 4294967296), printf('city %d', value % 997), value % 1000
  FROM generate_series(1, 200000);
  INSERT INTO sale
  SELECT value, 1 + value * 2654435761 % 4294967296 * (value % 65521) / 1024 % 200000, value % 10007 / 100.0, printf('%064x', value * 2654435761 % 4294967296)
  FROM generate_series(1, 1000000);
CREATE INDEX sale_customer ON sale(customer);
COMMIT;
