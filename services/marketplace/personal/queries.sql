-- name: erase_listings(handles)!
DELETE FROM listings WHERE split_part(model, '/', 1) = ANY(:handles::text[]);
