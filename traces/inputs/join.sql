PRAGMA mmap_size=1073741824;
SELECT count(*), sum(sale.amount * customer.credit), max(sale.note)
FROM customer CROSS JOIN sale ON sale.customer = customer.id;
