SET threads=1;
CREATE TABLE customer AS
  SELECT value * 2654435761 % 4294967296 AS id, printf('city %d', value % 997) AS city, value % 1000 AS credit
  FROM range(1, 500001) AS numbers(value);
CREATE TABLE sale AS
  SELECT (1 + value * 40503 % 1000003 * 7919 % 500000) * 2654435761 % 4294967296 AS customer, value % 10007 / 100.0 AS amount
  FROM range(1, 2000001) AS numbers(value);
